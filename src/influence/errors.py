"""Every way influence can fail, as one tree.

    InfluenceError
    ├── HubError                   a Hub or mirror did not give what was asked of it
    │   ├── HubUnreachable         no connection: refused, no such host, an untrusted certificate
    │   ├── ModelNotFound          no such model there, or a private one
    │   ├── RevisionNotFound       the model has no such branch, tag or commit
    │   ├── EntryNotFound          the model has no such file
    │   ├── GatedModel             its licence must be accepted first
    │   ├── InvalidToken           the token is not known to the host it was sent to
    │   ├── MirrorRefused          the host answered "no", or with a web page
    │   ├── RedirectRefused        it sends us to a place where we don't go
    │   ├── InvalidAnswer          what it answered can't be understood, or is too much
    │   ├── UnsafeName             a file name that could leave the folder, or hide another
    │   ├── NoSafeWeights          the model has no weights in safetensors
    │   ├── IncompleteModel        the index of its weights names a file that it has not
    │   ├── HostsDisagree          two hosts tell different things of one model
    │   ├── DownloadFailed         the bytes did not come, for all the tries
    │   │   ├── LineBroken         one try: cut, stalled, too slow; another may succeed
    │   │   ├── LinkExpired        one try: a signed address is no longer good
    │   │   └── RangeRefused       one try: other bytes came than were asked for
    │   ├── WriteFailed            the model's folder can't be written: full, read-only, a link in it
    │   └── IntegrityError         the bytes came, but are not those that were published
    ├── ModelError                 something about a model on this disk
    │   ├── ModelFilesMissing      a folder, or a file that must be in it, is not there
    │   ├── InvalidConfig          config.json (or a file like it) says something impossible
    │   ├── UnsupportedModel       a sound model of a kind that no engine here runs
    │   └── InvalidCheckpoint      the weights are damaged or do not fit the config
    ├── TokenizerError             tokenizer.json or the chat template is unusable
    ├── EngineError
    │   ├── DeviceUnavailable      the device asked for is not on this machine
    │   ├── ContextFull            the prompt does not fit the context
    │   ├── OutOfMemory            weights or KV cache do not fit the memory
    │   └── NumericError           the model computed NaN or infinity
    └── RequestError               what was asked for can't be done
        ├── InvalidParameter       a value out of its range
        ├── PortUnavailable        the server can't have the port that it should listen on
        └── ServerBusy             no place for another request now

A leaf is a situation that a user can be in. Its constructor takes facts and
builds the message; `hint` is the next thing to do. Errors are raised at the
lowest floor that knows the facts and caught in `cli/failure.py` (exit codes)
and the server (statuses) alone.
"""

from __future__ import annotations

from pathlib import Path


class InfluenceError(Exception):
    """Base of all errors that influence raises on purpose.

    `message` says what happened, `hint` what to do next (may be empty).
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class HubError(InfluenceError):
    """A Hub or mirror did not give what was asked of it."""


class HubUnreachable(HubError):
    """No connection to the host, for all the tries; says what was in the way.

    `lasting` tells that another try would end the same way.
    """

    def __init__(self, host: str, problem: str, *, hint: str = "", lasting: bool = False) -> None:
        super().__init__(
            f"no connection to {host}: {problem}",
            hint=hint or "check the network and the proxy, or name another mirror with --mirror URL",
        )
        self.host = host
        self.lasting = lasting


class ModelNotFound(HubError):
    """The host knows no such model, or does not show it to us."""

    def __init__(self, repo: str, host: str, *, has_token: bool) -> None:
        private = "the token's account can't see it" if has_token else "it is private (then pass --token)"
        super().__init__(
            f"{host} has no model {repo}",
            hint=f"check the spelling with `influence search`, or {private}",
        )
        self.repo = repo
        self.host = host


class RevisionNotFound(HubError):
    """The model has no such branch, tag or commit."""

    def __init__(self, repo: str, revision: str) -> None:
        super().__init__(
            f"{repo} has no revision {revision!r}",
            hint="give a branch, tag or full commit to --revision, or leave it out for main",
        )
        self.repo = repo
        self.revision = revision


class EntryNotFound(HubError):
    """The model has no such file at this revision."""

    def __init__(self, repo: str, path: str, revision: str) -> None:
        super().__init__(
            f"{repo} has no file {path!r} at revision {revision!r}",
            hint=f"see `influence plan {repo}` for the files that it has",
        )
        self.repo = repo
        self.path = path


class GatedModel(HubError):
    """The model is given only to accounts that accepted its licence."""

    def __init__(self, repo: str, licence_url: str, *, has_token: bool) -> None:
        if has_token:
            problem, step = "the token's account was not granted access", "ask for access at"
        else:
            problem, step = "its licence must be accepted first", "accept it, signed in, at"
        super().__init__(
            f"{repo} is gated: {problem}",
            hint=f"{step} {licence_url}, then pass a token of that account with --token (or HF_TOKEN)",
        )
        self.repo = repo
        self.licence_url = licence_url
        self.has_token = has_token


class InvalidToken(HubError):
    """The host does not know the token that was sent to it."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} does not accept the token",
            hint="make a new one at https://huggingface.co/settings/tokens, or leave the token out",
        )
        self.host = host


class MirrorRefused(HubError):
    """The host answered "no" without a reason of the Hub's, or with a web page; says what came."""

    def __init__(self, host: str, problem: str, *, hint: str = "") -> None:
        super().__init__(
            f"{host} {problem}",
            hint=hint or "try another mirror: --mirror https://huggingface.co",
        )
        self.host = host


class RedirectRefused(HubError):
    """The host sends us to a place where we don't go; names both and why."""

    def __init__(self, source: str, target: str, reason: str, *, hint: str = "") -> None:
        super().__init__(
            f"{source} redirects to {target}, {reason}",
            hint=hint or "name another mirror with --mirror URL",
        )
        self.source = source
        self.target = target


class InvalidAnswer(HubError):
    """An answer that can't be understood, or is larger than any honest one."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(
            f"{url}: {problem}", hint="try again later, or name another mirror with --mirror URL"
        )
        self.url = url


class UnsafeName(HubError):
    """A file name of the model that could leave its folder, or hide another file."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"the file name {path!r} {reason}",
            hint="nothing was written; leave the file out with --exclude, or report the model on the Hub",
        )
        self.path = path


class NoSafeWeights(HubError):
    """The model has no weights in safetensors; says what it has instead."""

    def __init__(self, repo: str, found: str) -> None:
        super().__init__(
            f"{repo} has no safetensors weights, only {found}",
            hint="pickled weights can run code and are never opened: look for a conversion with `influence search`",
        )
        self.repo = repo


class IncompleteModel(HubError):
    """The index of the weights names files that the model has not: it could not be run."""

    def __init__(self, repo: str, index: str, missing: list[str]) -> None:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        super().__init__(
            f"{repo} lacks {missing[0]!r}{more}, though its {index} names it",
            hint="nothing was downloaded: choose another --revision, or tell its authors on the Hub",
        )
        self.repo = repo
        self.missing = missing


class HostsDisagree(HubError):
    """Two hosts tell different things of one model; says what each does."""

    def __init__(self, what: str, told: dict[str, str]) -> None:
        (host, first), (other, second) = told.items()
        super().__init__(
            f"{what}: {host} says {first}, but {other} says {second}",
            hint="nothing was downloaded: a mirror may lag behind (name a commit with --revision), "
            "or change files (name another one with --mirror)",
        )
        self.told = told


class DownloadFailed(HubError):
    """The bytes did not come, for all the tries; `what` is a URL or a file."""

    def __init__(self, what: str, problem: str, *, hint: str = "") -> None:
        super().__init__(
            f"{what}: {problem}",
            hint=hint or "run the same command again: what was downloaded is kept",
        )
        self.what = what
        self.problem = problem


class LineBroken(DownloadFailed):
    """One try failed on the way (cut, stalled, too slow, 5xx); another may succeed.

    `wait_s` is how long the host asked us to wait before it, None if it did not.
    """

    def __init__(self, what: str, problem: str, *, hint: str = "", wait_s: float | None = None) -> None:
        super().__init__(what, problem, hint=hint)
        self.wait_s = wait_s


class LinkExpired(DownloadFailed):
    """A signed address is no longer good; the Hub gives a new one."""


class RangeRefused(DownloadFailed):
    """Other bytes came than were asked for; none of them may be used."""


class WriteFailed(HubError):
    """The model's folder can't be written: the disk is full or read-only, a link lies in it."""

    def __init__(self, path: Path, problem: str, *, hint: str) -> None:
        super().__init__(f"{path}: {problem}", hint=hint)
        self.path = path


class IntegrityError(HubError):
    """The bytes came, but are not those that were published."""

    def __init__(self, path: str, found: str, expected: str) -> None:
        super().__init__(
            f"{path}: the content is {found}, but was published as {expected}",
            hint="download it again; if it stays wrong, name another mirror with --mirror URL",
        )
        self.path = path
        self.found = found
        self.expected = expected


class ModelError(InfluenceError):
    """Something about a model on this disk."""


class ModelFilesMissing(ModelError):
    """A model folder, or a file that must be in it, is not there."""

    def __init__(self, path: Path, missing: str, *, hint: str) -> None:
        super().__init__(f"{path}: {missing}", hint=hint)
        self.path = path


class InvalidConfig(ModelError):
    """A JSON file of the model says something impossible; names file and key."""

    def __init__(self, path: Path, key: str, problem: str, *, hint: str = "") -> None:
        where = f"{path}: {key}" if key else f"{path}"
        super().__init__(
            f"{where}: {problem}",
            hint=hint or "the file is damaged or was edited by hand: download the model again",
        )
        self.path = path
        self.key = key


class UnsupportedModel(ModelError):
    """A sound model of a kind that no engine here runs; says why and what to use instead."""

    def __init__(self, path: Path, reason: str, *, hint: str) -> None:
        super().__init__(f"{path}: {reason}", hint=hint)
        self.path = path


class InvalidCheckpoint(ModelError):
    """The weights are damaged or do not fit the config; names file and tensor."""

    def __init__(self, path: Path, problem: str, *, tensor: str = "", hint: str = "") -> None:
        where = f"{path}: tensor {tensor!r}" if tensor else f"{path}"
        super().__init__(
            f"{where}: {problem}",
            hint=hint or "the file is damaged or incomplete: download it again",
        )
        self.path = path
        self.tensor = tensor


class TokenizerError(InfluenceError):
    """tokenizer.json, tokenizer_config.json or the chat template is unusable."""

    def __init__(self, path: Path, problem: str, *, hint: str = "") -> None:
        super().__init__(
            f"{path}: {problem}",
            hint=hint or "the file is damaged or of an unknown kind: download the model again",
        )
        self.path = path


class EngineError(InfluenceError):
    """Running the model failed."""


class DeviceUnavailable(EngineError):
    """The device that the user named is not usable on this machine; says why."""

    def __init__(self, device: str, reason: str, *, hint: str = "") -> None:
        super().__init__(
            f"device {device!r} is not available: {reason}",
            hint=hint or "use --device cpu, or --device auto; `influence doctor` lists the devices",
        )
        self.device = device


class ContextFull(EngineError):
    """More positions were asked for than the context has."""

    def __init__(self, n_tokens: int, n_wanted: int, context: int) -> None:
        super().__init__(
            f"the prompt has {n_tokens} tokens and at least {n_wanted} more are needed, "
            f"but the context is {context}",
            hint="shorten the prompt, or give a larger --context if the model allows it",
        )
        self.n_tokens = n_tokens
        self.n_wanted = n_wanted
        self.context = context


def _size(n_bytes: int) -> str:
    """Bytes for people: decimal units, as disks and memory are sold."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} bytes"


class OutOfMemory(EngineError):
    """What is asked for needs more memory than there is; gives both numbers."""

    def __init__(self, what: str, needed_bytes: int, available_bytes: int, *, hint: str = "") -> None:
        super().__init__(
            f"{what} needs {_size(needed_bytes)}, but {_size(available_bytes)} are free",
            hint=hint or "give a smaller --context, choose a smaller model, or close other programs",
        )
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class NumericError(EngineError):
    """The model computed NaN or infinity; nothing was made up in its place."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(
            f"the model gave {what} at position {position}",
            hint="the weights are probably damaged: verify them, or download the model again",
        )
        self.position = position


class RequestError(InfluenceError):
    """What was asked for can't be done."""


class InvalidParameter(RequestError):
    """A value out of its range; names the parameter, the value, and the range."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(
            f"{name} is {value!r}, but must be {expected}",
            hint="see --help for the ranges",
        )
        self.name = name
        self.value = value
        self.expected = expected


class PortUnavailable(RequestError):
    """The server can't have the port that it should listen on; says why."""

    def __init__(self, host: str, port: int, reason: str, *, hint: str) -> None:
        super().__init__(f"can't listen on {host} port {port}: {reason}", hint=hint)
        self.host = host
        self.port = port


class ServerBusy(RequestError):
    """No place for another request now; try again after `retry_after_s` seconds."""

    def __init__(self, n_waiting: int, retry_after_s: float) -> None:
        super().__init__(
            f"{n_waiting} requests are waiting already",
            hint=f"try again in {retry_after_s:.0f} s",
        )
        self.retry_after_s = retry_after_s
