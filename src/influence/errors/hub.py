"""A hub or a mirror, the line to it, or the disk that a download goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from influence.errors.base import InfluenceError

if TYPE_CHECKING:
    from pathlib import Path


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
