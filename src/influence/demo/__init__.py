"""The storyteller that ships in the package as `-m demo`, so that it runs on a machine never online.

A Llama of about two million parameters, trained by `tools/train_demo.py` from
text that a grammar wrote; `model/README.md` says how.
"""

from __future__ import annotations

from pathlib import Path

NAME = "demo"


def folder() -> Path:
    """The demo model's Hugging Face folder."""
    return Path(__file__).resolve().parent / "model"
