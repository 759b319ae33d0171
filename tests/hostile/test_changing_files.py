"""Weights that change while they are in use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from support.safetensors_files import safetensors_file

_TRUNCATE_IN_USE = """
import os, sys
from pathlib import Path
from influence.engines import native
from influence.engines.base import Step
from influence.models.binding import Weights
from influence.weights.checkpoint import Checkpoint
from support.random_specs import random_weights, small_spec

checkpoint = Checkpoint.open(Path(sys.argv[1]))
spec = small_spec(vocab_size=4096, hidden_size=64)
weights = random_weights(spec)
outer = {**weights.outer, "embed": checkpoint.tensor("embed")}
engine = native.load(spec, Weights(outer=outer, layers=weights.layers),
                     mapped_files=checkpoint.mapped_files())
engine.forward([Step(engine.new_session(8), [1])])
os.truncate(checkpoint.files[0], 4096)
engine.forward([Step(engine.new_session(8), [4000])])
print("went on")
"""


def test_a_file_cut_short_in_use_ends_the_process_with_a_message(tmp_path: Path) -> None:
    table = np.zeros((4096, 64), dtype="<f4")
    file = safetensors_file({"embed": ("F32", [4096, 64], table.tobytes())})
    (tmp_path / "model.safetensors").write_bytes(file)
    tests = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", _TRUNCATE_IN_USE, str(tmp_path)],
        env={"PYTHONPATH": f"{tests}:{tests.parent / 'src'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "model.safetensors: the file was cut short while the model was in use" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
