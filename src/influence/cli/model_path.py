"""Where the model that `-m` names lies: a folder, a downloaded ORG/NAME, or the demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from influence import demo
from influence.errors import InvalidParameter, ModelFilesMissing

if TYPE_CHECKING:
    from influence.hub.store import Entry

MODELS_FOLDER = Path("models")


def find_model(text: str) -> Path:
    """The folder that `text` names. Raises ModelFilesMissing if there is none.

    A folder comes before a downloaded model of the same name; a folder that is
    called demo is `./demo`. A download that only lacked its last renames is made
    good; one that has hardly begun is no model yet.
    """
    if text == demo.NAME:
        return demo.folder()
    folder = Path(text)
    if not folder.is_dir():
        _check_absent(folder)
        folder = _downloaded(text)
    _check_begun(folder)
    return folder


def _check_absent(path: Path) -> None:
    if path.exists():
        raise ModelFilesMissing(
            path, "this is not a folder", hint="give the folder that holds config.json and the weights"
        )


def _downloaded(text: str) -> Path:
    from influence.hub.names import RepoId

    try:
        repo = RepoId.parse(text)
    except InvalidParameter:
        raise ModelFilesMissing(
            Path(text),
            "the model folder is not there",
            hint="check the path; -m demo runs the model that comes with influence",
        ) from None
    folder = MODELS_FOLDER / repo.folder
    if not folder.is_dir():
        raise ModelFilesMissing(
            Path(text),
            f"there is no such folder, and no downloaded model in {folder}",
            hint=f"`influence download {repo}` gets it; -m demo runs the model that comes with influence",
        )
    return folder


def _check_begun(folder: Path) -> None:
    entry = _download_in(folder)
    if entry and entry.is_only_begun:
        raise ModelFilesMissing(
            folder,
            "the download of this model is not complete",
            hint="run the same `influence download` again: it goes on where it stopped",
        )


def unfinished_note(folder: Path) -> str:
    """What to know of a download into the model's folder that is not complete; "" if there is none."""
    entry = _download_in(folder)
    if entry is None or not entry.is_partial:
        return ""
    return (
        f"a download into {folder} is not complete: what was there before is used; "
        "the same `influence download` goes on with it"
    )


def _download_in(folder: Path) -> Entry | None:
    """The folder's entry, if a download was ever begun in it: most of the shelf's code is for these alone."""
    from influence.hub import OWN_FOLDER

    if not (folder / OWN_FOLDER).is_dir():
        return None
    from influence.hub.store import entry_of

    return entry_of(folder)
