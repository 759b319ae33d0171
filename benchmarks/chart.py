"""The README's chart, drawn from the results that are kept.

    python benchmarks/chart.py            writes docs/speed.svg
    python benchmarks/chart.py --check    fails if it is not what would be written

A panel for each case, a pair of bars for each format: ours, and below it
llama.cpp's of the same run, both in tokens a second on the panel's own scale.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from cases import OURS
from model_files import PROJECT

RESULTS = PROJECT / "benchmarks" / "results"
CHART = PROJECT / "docs" / "speed.svg"
PEER = "llama.cpp"
_RUN = "2026-11-28-tinyllama-1.1b"
SERIES = {  # label: the results whose cases it has
    "bf16": (f"{_RUN}-bf16", f"{_RUN}-bf16-depth", f"{_RUN}-bf16-streams"),
    "packed : bf16": (f"{_RUN}-packed",),
    "q8 : Q8_0": (f"{_RUN}-q8", f"{_RUN}-q8-depth-flash-off", f"{_RUN}-q8-streams"),
    "q4 : Q4_K_M": (f"{_RUN}-q4", f"{_RUN}-q4-depth-flash-off", f"{_RUN}-q4-streams"),
}
PANELS = {
    "prefill 512": "a prompt of 512 tokens",
    "decode at 128": "one stream",
    "decode at 2048": "one stream after 2048 tokens",
    "decode at 128, 16 streams": "16 streams, all together",
}

_WIDTH, _PANEL_WIDTH, _LABEL_WIDTH, _VALUE_WIDTH = 880, 430, 100, 92
_BAR, _ROW, _HEAD, _GAP = 11, 34, 34, 18
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .small { font-size: 11px; fill: #59636e }
  .ours { fill: #1a7f5a }
  .peer { fill: #b6bec7 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .ours { fill: #3fb68b }
    .peer { fill: #565e68 }
  }
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Tokens a second of one format at one case."""

    label: str
    ours: float
    peer: float
    ratio: float


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the chart is another")
    drawn = chart()
    if not parser.parse_args().check:
        CHART.write_text(drawn)
        return 0
    if CHART.read_text() == drawn:
        return 0
    print(f"{CHART} is not what the results say: run benchmarks/chart.py", file=sys.stderr)
    return 1


def chart() -> str:
    """The whole drawing, as SVG."""
    panels = [(title, pairs) for case, title in PANELS.items() if (pairs := _pairs(case))]
    parts, y = [], 0
    for left, right in _two_by_two(panels):
        height = max(_height(pairs) for _, pairs in (left, *right))
        parts += _panel(0, y, *left)
        for title, pairs in right:
            parts += _panel(_WIDTH - _PANEL_WIDTH, y, title, pairs)
        y += height + _GAP
    parts.append(_text(0, y, "small", f"tokens a second; green: {OURS}, gray: {PEER} of the same run"))
    description = "; ".join(
        f"{title}: " + ", ".join(f"{pair.label} {pair.ours:.1f} against {pair.peer:.1f}" for pair in pairs)
        for title, pairs in panels
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -16 {_WIDTH} {y + 24}" role="img">',
            f"<title>{escape(description)}</title>",
            f"<style>{_STYLE}</style>",
            *parts,
            "</svg>",
            "",
        ]
    )


def _pairs(case: str) -> list[Pair]:
    """Of every series that has the case."""
    found = []
    for label, names in SERIES.items():
        for name in names:
            cases = json.loads((RESULTS / f"{name}.json").read_text())["cases"]
            found += [_pair(label, one["engines"]) for one in cases if one["name"] == case]
    return found


def _pair(label: str, engines: dict[str, Any]) -> Pair:
    ours, peer = engines[OURS], engines[PEER]
    return Pair(label, ours["tokens_per_s"], peer["tokens_per_s"], peer["our_ratio"])


def _two_by_two(
    panels: Sequence[tuple[str, list[Pair]]],
) -> list[tuple[tuple[str, list[Pair]], Sequence[tuple[str, list[Pair]]]]]:
    """(left, right if there is one), row by row."""
    return [(panels[at], panels[at + 1 : at + 2]) for at in range(0, len(panels), 2)]


def _height(pairs: Sequence[Pair]) -> int:
    return _HEAD + _ROW * len(pairs)


def _panel(x: int, y: int, title: str, pairs: Sequence[Pair]) -> list[str]:
    widest = _PANEL_WIDTH - _LABEL_WIDTH - _VALUE_WIDTH
    scale = widest / max(max(pair.ours, pair.peer) for pair in pairs)
    parts = [_text(x, y, "title", title)]
    for row, pair in enumerate(pairs):
        top = y + _HEAD - 16 + row * _ROW
        bars = x + _LABEL_WIDTH
        parts += [
            _text(x, top + _BAR + 3, "", pair.label),
            _bar(bars, top, scale * pair.ours, "ours"),
            _bar(bars, top + _BAR + 2, scale * pair.peer, "peer"),
            _text(bars + scale * pair.ours + 6, top + 10, "small", f"{pair.ours:.4g}  ({pair.ratio:.2g}x)"),
            _text(bars + scale * pair.peer + 6, top + _BAR + 12, "small", f"{pair.peer:.4g}"),
        ]
    return parts


def _text(x: float, y: float, style: str, words: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{style}">{escape(words)}</text>'


def _bar(x: float, y: float, width: float, style: str) -> str:
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.1f}" height="{_BAR}" rx="2" class="{style}"/>'


if __name__ == "__main__":
    sys.exit(main())
