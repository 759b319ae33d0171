"""Ranks end together: whichever is lost, one error says which and why, and no process is left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")

from influence import demo
from influence.engines import select as selection
from influence.engines.base import Engine, Step
from influence.engines.torch import devices
from influence.engines.torch.memory import Room
from influence.engines.torch.parallel import team as team_module
from influence.engines.torch.parallel.commands import CopyBlock, RankDevice, WeightsSource
from influence.engines.torch.parallel.engine import TeamEngine, load_on_ranks
from influence.engines.torch.parallel.team import Team
from influence.errors import RankFailed
from influence.generation.generator import Generator
from influence.generation.params import GenerationParams
from influence.models.model import Model, open_model
from influence.text.tokenizer import Tokenizer
from support.checkpoints import BY_NAME, make_checkpoint

TWO = [RankDevice("cpu")] * 2
WAIT_S = 60.0  # for what takes milliseconds on a machine that has nothing else to do

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux to wait for any process")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return open_model(make_checkpoint(BY_NAME["llama"], tmp_path))


def all_end(process_ids: Sequence[int]) -> bool:
    """Whether these processes are gone, or go soon; they need not be ours."""
    for process_id in process_ids:
        try:
            descriptor = os.pidfd_open(process_id)
        except ProcessLookupError:
            continue
        ended = select.select([descriptor], [], [], WAIT_S)[0]
        os.close(descriptor)
        if not ended:
            return False
    return True


def loaded_as_on_gpus(model: Model, monkeypatch: pytest.MonkeyPatch) -> TeamEngine:
    """What `--device cuda --device-index 3 --tensor-parallel 2` loads, but that the devices are the CPU."""
    monkeypatch.setattr(selection, "device_for", lambda device, index: "cuda")
    monkeypatch.setattr(devices, "ranks_problem", lambda index, n_ranks: ("", ""))
    monkeypatch.setattr(devices, "RankDevice", lambda kind, index: RankDevice("cpu", index))
    engine = selection.load_engine(model, "cuda", device_index=3, tensor_parallel=2, context=64)
    assert isinstance(engine, TeamEngine)
    return engine


def step(engine: Engine) -> None:
    engine.forward([Step(engine.new_session(64), [1, 2, 3])])
    engine.logits()


def test_a_rank_that_is_killed_ends_requests_with_its_name_and_ctrl_c_is_not_for_it() -> None:
    model, tokenizer = open_model(demo.folder()), Tokenizer.load(demo.folder())
    engine, params = load_on_ranks(model, TWO, Room(512)), GenerationParams(max_tokens=500, ignore_eos=True)
    [other] = engine._team.process_ids
    with Generator(engine, tokenizer, frozenset()) as generator:
        assert generator.facts().is_alive
        os.kill(other, signal.SIGINT)
        stream = generator.submit([1, 2, 3], params)
        next(iter(stream))
        os.kill(other, signal.SIGKILL)
        for one in (stream, generator.submit([1, 2, 3], params)):  # whoever asks again hears the same
            with pytest.raises(RankFailed, match=r"rank 1 of 2 \(cpu\) failed: .* was ended by signal 9"):
                one.collect()
        assert not generator.facts().is_alive
    assert all_end([other])
    engine.close()
    engine.close()


def test_a_rank_that_can_not_load_tells_its_own_reason(model: Model) -> None:
    team = Team(TWO)
    source = replace(WeightsSource.of(model), fingerprint="of what was here before")
    with pytest.raises(RankFailed, match=r"rank 1 of 2 .* failed: .*changed while it was loaded") as caught:
        TeamEngine(model.spec, model.weights, team, Room(64), source=source)
    assert caught.value.hint == "start again"
    assert all_end(team.process_ids)
    team.close()


def test_a_rank_that_does_not_answer_is_given_up(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_on_ranks(model, TWO, Room(64))
    [other] = engine._team.process_ids
    monkeypatch.setattr(team_module, "_STEP_LIMIT_S", 0.0)
    monkeypatch.setattr("influence.engines.torch.parallel.process._END_S", 0.0)
    os.kill(other, signal.SIGSTOP)
    with pytest.raises(RankFailed, match="one of 2 ranks failed: a step did not end in time"):
        step(engine)
    assert all_end([other])
    engine.close()


def test_a_rank_that_fails_in_a_step_fails_that_step_and_none_can_be_reached_from_outside(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loaded_as_on_gpus(model, monkeypatch)
    assert engine._team.devices == (RankDevice("cpu", 3), RankDevice("cpu", 4))
    [other] = engine._team.process_ids
    listening = [one for one in psutil.Process(other).net_connections() if one.status == psutil.CONN_LISTEN]
    assert {one.laddr.ip for one in listening} <= {"127.0.0.1"}
    engine._team.tell((engine._number, CopyBlock(0, 1 << 40)))
    with pytest.raises(RankFailed, match=r"rank 1 of 2 \(cpu\) failed: IndexError"):
        step(engine)
    engine.close()


PARENT = """
import sys
from influence.engines.torch.parallel.commands import RankDevice
from influence.engines.torch.parallel.team import Team
if __name__ == "__main__":
    team = Team([RankDevice("cpu")] * 2)
    print(*team.process_ids, flush=True)
    sys.stdin.read()
"""


def test_ranks_end_with_a_first_one_that_is_killed_and_leave_nothing(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    with parent:
        assert parent.stdout is not None
        process_ids = [int(word) for word in parent.stdout.readline().split()]
        assert len(process_ids) == 1
        assert len(list(tmp_path.iterdir())) == 1
        parent.kill()
    assert all_end(process_ids)
    assert list(tmp_path.iterdir()) == []
