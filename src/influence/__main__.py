"""`python -m influence`, and the `influence` script."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

# What imports make is there to stay: by Python's own threshold of 700 new objects
# a tenth of a start goes into looking for garbage among it.
_OBJECTS_PER_COLLECTION = 50_000


def run() -> NoReturn:
    """The process's entry point."""
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    from influence.cli.ahead import renderer_for

    renderer = renderer_for(sys.argv[1:])  # before the imports, beside which it gets ready
    from influence.cli import main

    try:
        main.run(renderer)
    finally:
        gc.freeze()  # all goes with the process, cycles or not: the interpreter need not look for them


if __name__ == "__main__":
    run()
