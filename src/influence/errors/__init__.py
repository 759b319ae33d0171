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
    │   ├── RankFailed             a process that runs a part of the model is gone, and so are its peers
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

from influence.errors.base import InfluenceError
from influence.errors.engine import (
    ContextFull,
    DeviceUnavailable,
    EngineError,
    NumericError,
    OutOfMemory,
    RankFailed,
)
from influence.errors.hub import (
    DownloadFailed,
    EntryNotFound,
    GatedModel,
    HostsDisagree,
    HubError,
    HubUnreachable,
    IncompleteModel,
    IntegrityError,
    InvalidAnswer,
    InvalidToken,
    LineBroken,
    LinkExpired,
    MirrorRefused,
    ModelNotFound,
    NoSafeWeights,
    RangeRefused,
    RedirectRefused,
    RevisionNotFound,
    UnsafeName,
    WriteFailed,
)
from influence.errors.model import (
    InvalidCheckpoint,
    InvalidConfig,
    ModelError,
    ModelFilesMissing,
    TokenizerError,
    UnsupportedModel,
)
from influence.errors.request import InvalidParameter, PortUnavailable, RequestError, ServerBusy

__all__ = [
    "ContextFull",
    "DeviceUnavailable",
    "DownloadFailed",
    "EngineError",
    "EntryNotFound",
    "GatedModel",
    "HostsDisagree",
    "HubError",
    "HubUnreachable",
    "IncompleteModel",
    "InfluenceError",
    "IntegrityError",
    "InvalidAnswer",
    "InvalidCheckpoint",
    "InvalidConfig",
    "InvalidParameter",
    "InvalidToken",
    "LineBroken",
    "LinkExpired",
    "MirrorRefused",
    "ModelError",
    "ModelFilesMissing",
    "ModelNotFound",
    "NoSafeWeights",
    "NumericError",
    "OutOfMemory",
    "PortUnavailable",
    "RangeRefused",
    "RankFailed",
    "RedirectRefused",
    "RequestError",
    "RevisionNotFound",
    "ServerBusy",
    "TokenizerError",
    "UnsafeName",
    "UnsupportedModel",
    "WriteFailed",
]
