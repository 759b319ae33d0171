"""What a host offers of a model, examined before a byte of the weights is asked for.

1. the revision is resolved to one commit, which is then meant by everything
2. the commit's files are listed, with sizes and hashes
3. a second host, where the user names one, must tell the same of each of them
4. the files worth their bytes are chosen
5. the index of weights in several files, itself small, may name no file that is not listed
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from influence.dataclass import dataclass
from influence.errors import HostsDisagree, IncompleteModel, IntegrityError, InvalidAnswer
from influence.hub.client import Hub
from influence.hub.names import RepoId
from influence.hub.records import RemoteFile, Revision
from influence.hub.selection import Selection, select
from influence.hub.weights_index import MAX_INDEX_BYTES, SUFFIX, shards_of

_NOTHING = "nothing of it"
_INDEX_TRIES = 2


@dataclass(frozen=True)
class Offer:
    """A model at one commit, and which of its files are worth their bytes."""

    revision: Revision  # with the name that the Hub has for it now
    selection: Selection
    witness: str  # the host that told the same of every file; "" if none was asked

    @property
    def unhashed(self) -> tuple[str, ...]:
        """The chosen files of which nobody tells a hash."""
        return tuple(file.path for file in self.selection.chosen if not file.published_hash)


def examine(
    hub: Hub,
    repo: RepoId,
    revision: str = "main",
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    witness: Hub | None = None,
) -> Offer:
    """What `hub` offers of a model; `include` and `exclude` as `select` takes them.

    Raises IncompleteModel, HostsDisagree, what `select` raises, and what the hosts' answers mean.
    """
    found = hub.resolve(repo, revision)
    files = hub.tree(repo, found.sha)
    if witness:
        files = _confirmed(files, hub, witness, repo, revision, found.sha)
    selection = select(files, include=include, exclude=exclude, repo=str(repo))
    paths = {file.path for file in files}
    for file in selection.chosen:
        if file.path.endswith(SUFFIX):
            _check_shards(hub, repo, found.sha, file, paths)
    return Offer(found, selection, witness.endpoint.host if witness else "")


def check_granted(hub: Hub, offer: Offer) -> None:
    """Raises GatedModel where everybody may see the list, but not we the bytes.

    One byte of the largest file is asked for: some files of a gated model, its
    README say, may be for everybody.
    """
    if offer.revision.gated:
        largest = max(offer.selection.chosen, key=lambda file: file.size_bytes or 0)
        hub.file_facts(offer.revision.repo, offer.revision.sha, largest.path)


def _confirmed(
    files: Sequence[RemoteFile], hub: Hub, witness: Hub, repo: RepoId, revision: str, sha: str
) -> tuple[RemoteFile, ...]:
    """The files, with what `witness` alone tells of them; HostsDisagree where both tell, and not the same.

    The same commit is asked of both: where a branch is, and what is in it.
    """
    hosts = (hub.endpoint.host, witness.endpoint.host)
    their_sha = witness.resolve(repo, revision).sha
    if their_sha != sha:
        raise HostsDisagree(
            f"{repo} at {revision!r}", dict(zip(hosts, (f"it is {sha}", f"it is {their_sha}"), strict=True))
        )
    theirs = {file.path: file for file in witness.tree(repo, sha)}
    ours = {file.path: file for file in files}
    for path in sorted(ours.keys() | theirs.keys()):
        pair = (ours.get(path), theirs.get(path))
        if not _agree(*pair):
            raise HostsDisagree(f"{path!r} of {repo}", dict(zip(hosts, map(_told, pair), strict=True)))
    return tuple(_completed(file, theirs[file.path]) for file in files)


def _agree(ours: RemoteFile | None, theirs: RemoteFile | None) -> bool:
    """Whether what both tell is the same; what one does not know is no difference."""
    if ours is None or theirs is None:
        return False
    same_size = None in (ours.size_bytes, theirs.size_bytes) or ours.size_bytes == theirs.size_bytes
    same_hash = "" in (ours.published_hash, theirs.published_hash) or (
        (ours.sha256, ours.git_sha1) == (theirs.sha256, theirs.git_sha1)
    )
    return same_size and same_hash


def _told(file: RemoteFile | None) -> str:
    if file is None:
        return _NOTHING
    kind = "sha256" if file.sha256 else "git-sha1"
    known = f", {kind} {file.published_hash}" if file.published_hash else ""
    return f"{file.size_bytes} bytes{known}"


def _completed(ours: RemoteFile, theirs: RemoteFile) -> RemoteFile:
    file = ours if ours.published_hash else replace(ours, sha256=theirs.sha256, git_sha1=theirs.git_sha1)
    return replace(file, size_bytes=theirs.size_bytes) if file.size_bytes is None else file


def _check_shards(hub: Hub, repo: RepoId, sha: str, index: RemoteFile, paths: set[str]) -> None:
    try:
        missing = [shard for shard in shards_of(_index_content(hub, repo, sha, index)) if shard not in paths]
    except ValueError as error:
        raise InvalidAnswer(hub.file_url(repo, sha, index.path), str(error)) from error
    if missing:
        raise IncompleteModel(str(repo), index.path, missing)


def _index_content(hub: Hub, repo: RepoId, sha: str, index: RemoteFile) -> bytes:
    """The index as it was published; IntegrityError if it comes damaged again."""
    for _ in range(_INDEX_TRIES):
        content = hub.read_file(repo, sha, index.path, MAX_INDEX_BYTES)
        found = _hash(content, index)
        if found == index.published_hash:
            return content
    raise IntegrityError(index.path, found, index.published_hash)


def _hash(content: bytes, like: RemoteFile) -> str:
    """Of the kind that is published of `like`."""
    if like.sha256:
        return hashlib.sha256(content).hexdigest()
    if like.git_sha1:
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return ""
