"""Weights that are brought in ahead of the first pass."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from influence import _native
from influence.engines import machine, native, select
from influence.models.model import Model, open_model

SIZE = 40 << 20  # more than two chunks of it


def mapped(path: Path) -> memoryview:
    path.write_bytes(b"\1" * SIZE)
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_READ))


def resident_bytes() -> int:
    """What this process has of mapped files in its page table."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("the system does not tell")
    [line] = [line for line in status.read_text().splitlines() if line.startswith("RssFile")]
    return int(line.split()[1]) * 1024


def test_what_is_read_ahead_is_in_the_page_table(tmp_path: Path) -> None:
    data = mapped(tmp_path / "weights")
    before = resident_bytes()
    reading = _native.ReadAhead([data[100:], data[:50]])
    reading.wait()
    if resident_bytes() == before:
        pytest.skip("this kernel only takes note of the advice")
    assert resident_bytes() >= before + SIZE - (1 << 20)
    assert bytes(data[-3:]) == b"\1\1\1"


def test_reading_ahead_can_be_dropped_and_waited_for_twice(tmp_path: Path) -> None:
    data = mapped(tmp_path / "weights")
    reading = _native.ReadAhead([data])
    del reading
    reading = _native.ReadAhead([data[:0], data[5:6]])
    reading.wait()
    reading.wait()


def test_a_file_that_is_cut_short_ends_no_process_by_being_read_ahead(tmp_path: Path) -> None:
    data = mapped(tmp_path / "weights")
    os.truncate(tmp_path / "weights", 4096)
    _native.ReadAhead([data]).wait()
    assert data[0] == 1


def test_a_model_is_read_ahead_where_its_weights_are_used_as_they_lie(
    demo_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert select.read_ahead(demo_model, "cpu", 0, "stored") is not None
    assert select.read_ahead(demo_model, "cpu", 0, "q8") is None
    monkeypatch.setattr(machine, "available_memory", lambda: 1 << 10)
    assert select.read_ahead(demo_model, "cpu", 0, "stored") is None


def test_every_matrix_and_the_head_are_read_ahead_layer_by_layer(
    demo_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(_native, "ReadAhead", lambda data: asked.extend(len(part) for part in data))
    native.read_ahead(demo_model.weights)
    head = demo_model.weights.outer.get("lm_head", demo_model.weights.outer["embed"])
    layers = [tensor.size_bytes for layer in demo_model.weights.layers for tensor in layer.values()]
    assert asked == [*layers, head.size_bytes]


@pytest.fixture
def demo_model() -> Model:
    from influence import demo

    return open_model(demo.folder())
