"""`python -m influence`, and the `influence` script."""

from __future__ import annotations

import sys
from typing import NoReturn


def run() -> NoReturn:
    """The process's entry point."""
    from influence.cli.ahead import renderer_for

    renderer = renderer_for(sys.argv[1:])  # before the imports, beside which it gets ready
    from influence.cli import main

    main.run(renderer)


if __name__ == "__main__":
    run()
