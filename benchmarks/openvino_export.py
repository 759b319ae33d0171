"""A model folder as OpenVINO reads it, by the converter of its own project: run in the peer's Python.

    python openvino_export.py FOLDER OUT int8|int4|bfloat16

Weights of 8 and 4 bits are as optimum-intel rounds them when told nothing but
the bits: 8 for each output channel; 4 in groups of 128 with zeros, and 8 for the
embedding and the head.
"""

from __future__ import annotations

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

_BITS = {"int8": 8, "int4": 4}
_ODD_SIZES = {"group_size_fallback": "adjust"}  # where 128 does not divide a row, a smaller group


def main() -> None:
    folder, out, form = sys.argv[1:]
    rounding = OVWeightQuantizationConfig(bits=_BITS[form], **_ODD_SIZES) if form in _BITS else None
    model = OVModelForCausalLM.from_pretrained(
        folder, export=True, compile=False, load_in_8bit=False, quantization_config=rounding
    )
    model.save_pretrained(out)


if __name__ == "__main__":
    main()
