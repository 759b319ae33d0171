"""The process of a rank after the first: does to its part of the model what rank 0 does to its own.

    python -m influence.engines.torch.parallel.worker DESCRIPTOR FOLDER

It ends when rank 0 does, whatever it is in the midst of: a thread waits for the
end of stdin, which nobody writes to and only rank 0 holds open. Then the folder
in which the ranks met goes too, for who was killed could not take it away.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection

import torch
from influence.engines.base import Blocks
from influence.engines.torch.engine import TorchEngine
from influence.engines.torch.memory import blocks_within
from influence.engines.torch.parallel.commands import (
    HERE,
    READY,
    Command,
    Failed,
    Load,
    RankPart,
    Start,
    Unload,
)
from influence.engines.torch.parallel.cuts import cut
from influence.engines.torch.parallel.group import PeerLost, RankGroup
from influence.engines.torch.placement import Placement
from influence.errors import InfluenceError

# Whoever only misses another lets that one say first what happened.
_OTHERS_FIRST_S = 2.0


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    descriptor, folder = sys.argv[1:]
    threading.Thread(target=_end_with_rank_0, args=(folder,), daemon=True).start()
    torch.set_num_threads(1)
    connection = Connection(int(descriptor))
    try:
        _serve(connection)
    except EOFError:
        pass
    except BaseException as error:
        if isinstance(error, PeerLost):
            time.sleep(_OTHERS_FIRST_S)
        connection.send(Failed.by(error))
    os._exit(1)  # whatever libraries would still wait for


def _end_with_rank_0(folder: str) -> None:
    while os.read(0, 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _serve(connection: Connection) -> None:
    start: Start = connection.recv()
    where = start.device.placement()
    connection.send(HERE)
    group = RankGroup(start.rank, start.size, start.meeting, where.device)
    where = replace(where, group=group)
    connection.send(READY)
    parts: dict[int, RankPart] = {}
    while True:
        number, command = connection.recv()
        match command:
            case Load():
                parts[number] = RankPart(_loaded(command, where, connection))
                connection.send(READY)
            case Unload():
                parts.pop(number).engine.close()
            case _:
                rows = _done(command, parts[number])
                if rows is not None:
                    connection.send(rows)


def _done(command: Command, part: RankPart) -> Blocks | None:
    """What came of the command; what can't be done is refused on all ranks, and told by rank 0."""
    try:
        return command.on(part)
    except InfluenceError:
        return None


def _loaded(load: Load, where: Placement, connection: Connection) -> TorchEngine:
    """This rank's part of the model, with as many blocks as the rank that has the least room."""
    own = cut(load.spec, where.group.rank, where.group.size, load.form)
    weights = own.weights(load.source.open())
    n_blocks = blocks_within(load.room, own.spec, weights, where, load.form)

    def agreed() -> int:
        connection.send(n_blocks())
        fewest: int = connection.recv()
        return fewest

    return TorchEngine(own.spec, weights, where, n_blocks=agreed, form=load.form, tied_rows=own.vocabulary)


if __name__ == "__main__":
    main()
