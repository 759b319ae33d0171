"""Where the model that `-m` names lies: a folder, a downloaded ORG/NAME, or the demo."""

from __future__ import annotations

import re
from pathlib import Path

from influence import demo
from influence.errors import ModelFilesMissing

MODELS_FOLDER = Path("models")
# A name on the Hub: letters, digits, "-", "_", "."; a dot neither first nor doubled.
_HUB_NAME = re.compile(r"(?!\.)[\w.-]+/(?!\.)[\w.-]+", re.ASCII)


def find_model(text: str) -> Path:
    """The folder that `text` names. Raises ModelFilesMissing if there is none.

    A folder comes before a downloaded model of the same name; a folder that is
    called demo is `./demo`.
    """
    if text == demo.NAME:
        return demo.folder()
    path = Path(text)
    if path.is_dir():
        return path
    if path.exists():
        raise ModelFilesMissing(
            path, "this is not a folder", hint="give the folder that holds config.json and the weights"
        )
    if _HUB_NAME.fullmatch(text):
        return _downloaded(text)
    raise ModelFilesMissing(
        path,
        "the model folder is not there",
        hint="check the path; -m demo runs the model that comes with influence",
    )


def _downloaded(name: str) -> Path:
    folder = MODELS_FOLDER / name.replace("/", "_")
    if folder.is_dir():
        return folder
    raise ModelFilesMissing(
        Path(name),
        f"there is no such folder, and no downloaded model in {folder}",
        hint="check the path, or put the model's files there; -m demo runs the model that comes with influence",
    )
