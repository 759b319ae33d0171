"""A model folder, opened: what it computes and where its weights lie. Nothing is copied."""

from __future__ import annotations

import stat
from pathlib import Path

from influence.dataclass import dataclass
from influence.errors import ModelFilesMissing
from influence.models.binding import Weights, bind
from influence.models.config import Config
from influence.models.generation_config import GenerationConfig
from influence.models.registry import read_architecture
from influence.models.spec import ModelSpec
from influence.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Model:
    """A checked model on this disk. Owns the mapped files, through `checkpoint`."""

    folder: Path
    model_type: str
    spec: ModelSpec
    weights: Weights
    checkpoint: Checkpoint
    generation_config: GenerationConfig


def open_model(folder: Path) -> Model:
    """config.json -> family -> spec -> bound weights, every size checked on the way.

    Raises ModelFilesMissing, InvalidConfig, UnsupportedModel or InvalidCheckpoint.
    """
    _require_folder(folder)
    config = Config.load(folder / "config.json")
    architecture = read_architecture(config)
    generation_config = GenerationConfig.load(folder, config)
    checkpoint = Checkpoint.open(folder)
    try:
        weights = bind(architecture.spec, architecture.layout, checkpoint)
    except BaseException:
        checkpoint.close()
        raise
    return Model(folder, config.text("model_type"), architecture.spec, weights, checkpoint, generation_config)


def _require_folder(folder: Path) -> None:
    try:
        missing = "" if stat.S_ISDIR(folder.stat().st_mode) else "is not a folder"
    except FileNotFoundError:
        missing = "there is no such folder"
    except (OSError, ValueError) as error:  # no permission, a name too long, a NUL in it
        missing = f"can't be opened: {getattr(error, 'strerror', None) or error}"
    if missing:
        raise ModelFilesMissing(folder, missing, hint="give the folder of a downloaded model")
