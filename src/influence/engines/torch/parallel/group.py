"""The ranks that run one model together, as the arithmetic sees them: where parts meet.

    share, summed    o and down: each rank has a term of every output; the residual counts once
    side_by_side     the head: each rank has some of the logits
    mean             of values that are spread over the ranks
    agree            what rank 0 chose is what all go on with

A `Group` of one does nothing. Between ranks a `RankGroup` lets torch's
collectives do it: NCCL's where ranks are CUDA devices, which a CUDA graph can
hold, gloo's elsewhere. Ranks find each other through a file and talk over
loopback or from GPU to GPU; no port is open to other machines.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from influence.engines.torch import ops
from influence.engines.torch.parallel.cuts import runs
from torch import Tensor
from torch.distributed.distributed_c10d import AllgatherOptions
from torch.nn import functional

# Between two collectives may lie another rank's loading; whoever watches the processes ends a wait for the dead.
_COLLECTIVE_LIMIT = timedelta(hours=2)
_MEETING_LIMIT = timedelta(seconds=120)  # all are there before they look for each other

# NCCL by itself listens on a network interface, and torch's watch over it ends the process that it is in.
_NCCL_SETTINGS = {
    "NCCL_SOCKET_IFNAME": "=lo",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
}


class PeerLost(Exception):
    """Another rank did not do its part of a collective; why is known where the processes are watched."""


class Group:
    """One rank alone."""

    rank = 0
    size = 1

    def share(self, x: Tensor) -> Tensor:
        """x as this rank's term of a sum that is to have it once."""
        return x

    def summed(self, part: Tensor) -> Tensor:
        """The sum over all ranks, float32 if there are several; `part` is gone."""
        return part

    def side_by_side(self, part: Tensor, n_columns: int) -> Tensor:
        """(n, this rank's run of the columns) -> (n, n_columns), everywhere."""
        return part

    def mean(self, x: Tensor) -> Tensor:
        """Over the last axis of all ranks' x together, (n, size) float32 -> (n, 1)."""
        return ops.mean(x)

    def agree(self, x: Tensor) -> None:
        """x becomes rank 0's."""

    def leave(self) -> None:
        """No more collectives; those under way end, whatever they give. Idempotent; for any thread."""


ALONE = Group()


class RankGroup(Group):
    """One of several ranks, each a process of its own; every rank does the same in the same order."""

    def __init__(self, rank: int, size: int, meeting: Path, device: torch.device) -> None:
        """Waits for all others; `meeting` is a file that is not there yet. Raises PeerLost."""
        self.rank, self.size, self._has_left = rank, size, False
        connect = _nccl if device.type == "cuda" else _gloo
        self._collectives = _done(lambda: connect(rank, size, meeting))
        self.summed(torch.zeros(1, device=device))  # connects, and takes the memory that this needs

    def share(self, x: Tensor) -> Tensor:
        return x if self.rank == 0 else torch.zeros_like(x)

    # A collective that is not asynchronous runs on the current stream, as a kernel does.

    def summed(self, part: Tensor) -> Tensor:
        whole, options = part.float(), dist.AllreduceOptions()
        options.asyncOp = False
        self._do(lambda: self._collectives.allreduce([whole], options))
        return whole

    def side_by_side(self, part: Tensor, n_columns: int) -> Tensor:
        widths = [run.stop - run.start for run in runs(n_columns, self.size)]
        padded = functional.pad(part, (0, max(widths) - part.shape[1]))
        gathered = padded.new_empty(self.size * len(part), max(widths))
        options = AllgatherOptions()
        options.asyncOp = False
        self._do(lambda: self._collectives._allgather_base(gathered, padded, options))
        parts = gathered.view(self.size, len(part), -1)
        return torch.cat([one[:, :width] for one, width in zip(parts, widths, strict=True)], dim=1)

    def mean(self, x: Tensor) -> Tensor:
        total, count = self.summed(torch.stack([x.sum(dim=-1), torch.full_like(x[..., 0], x.shape[-1])]))
        return (total / count).unsqueeze(-1)

    def agree(self, x: Tensor) -> None:
        options = dist.BroadcastOptions()
        options.asyncOp = False
        self._do(lambda: self._collectives.broadcast([x], options))

    def leave(self) -> None:
        if not self._has_left:
            self._has_left = True
            self._collectives.abort()

    def _do(self, begin: Callable[[], Any]) -> None:
        """A collective; on a GPU this orders streams and waits for nobody."""
        work = _done(begin)
        if work is not None:
            _done(work.wait)


def _done(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise PeerLost(str(error)) from error


def _gloo(rank: int, size: int, meeting: Path) -> Any:
    options = dist.ProcessGroupGloo._Options()
    options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
    options._timeout = _COLLECTIVE_LIMIT
    options._threads = 1
    return dist.ProcessGroupGloo(_store(size, meeting), rank, size, options)


def _nccl(rank: int, size: int, meeting: Path) -> Any:
    for name, value in _NCCL_SETTINGS.items():
        os.environ.setdefault(name, value)
    return dist.ProcessGroupNCCL(_store(size, meeting), rank, size, timeout=_COLLECTIVE_LIMIT)


def _store(size: int, meeting: Path) -> Any:
    store = dist.FileStore(str(meeting), size)
    store.set_timeout(_MEETING_LIMIT)
    return store
