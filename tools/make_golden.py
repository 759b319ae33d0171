"""Writes tests/golden/<family>.json: the logits that transformers gives on tiny random models.

    PYTHONPATH=src python tools/make_golden.py             all families
    PYTHONPATH=src python tools/make_golden.py llama phi   these

Needs torch and transformers; the test that reads the files needs neither. The
weights are not stored: tests/support/checkpoints.py makes them from the seed,
the same on every machine. Floats are rounded to 6 digits after the point.

    {"transformers": version, "cases": [{name, config, seed, token_ids, positions, logits}]}
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
GOLDEN = PROJECT / "tests" / "golden"
sys.path.insert(0, str(PROJECT / "tests"))

from support.cases import FAMILIES, Case  # noqa: E402
from support.checkpoints import make_checkpoint  # noqa: E402

# The first positions, some about the windows of the cases, the ends of a block of the KV cache.
_POSITIONS = (0, 1, 2, 8, 12, 17, 31, 63, 64)


def positions_of(case: Case) -> list[int]:
    """The positions whose logits are kept; the last one is always among them."""
    return sorted({position for position in _POSITIONS if position < case.n_tokens} | {case.n_tokens - 1})


def logits_of(case: Case) -> list[list[float]]:
    """Rows of transformers' logits at those positions, in float32 and in one thread."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(case, Path(folder))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        with torch.no_grad():
            rows = model(torch.tensor([case.token_ids()]), use_cache=False).logits[0, positions_of(case)]
    return [[round(value, 6) for value in row] for row in rows.tolist()]


def golden_of(case: Case) -> dict[str, Any]:
    return {
        "name": case.name,
        "config": dict(case.config),
        "seed": case.seed,
        "token_ids": case.token_ids(),
        "positions": positions_of(case),
        "logits": logits_of(case),
    }


def write(model_type: str) -> Path:
    """The golden file of one family."""
    import transformers

    cases = [golden_of(case) for case in FAMILIES if case.model_type == model_type]
    path = GOLDEN / f"{model_type}.json"
    path.write_text(json.dumps({"transformers": transformers.__version__, "cases": cases}) + "\n")
    return path


def main(wanted: list[str]) -> None:
    GOLDEN.mkdir(exist_ok=True)
    for model_type in wanted or sorted({case.model_type for case in FAMILIES}):
        path = write(model_type)
        print(f"{path.relative_to(PROJECT)}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
