"""`influence generate`, with the model that comes along."""

from __future__ import annotations

import io
import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from influence.cli import output
from influence.engines import gpus, machine, select
from influence.errors import NumericError
from influence.models.model import Model
from support.cli import MODEL, Outcome

ONCE = ("generate", "Once upon a time", "-m", MODEL, "--raw")
Run = Callable[..., Outcome]


def reply(influence: Run, *args: str) -> dict[str, object]:
    outcome = influence(*ONCE, *args, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    data: dict[str, object] = json.loads(outcome.stdout)
    return data


def test_text_goes_to_stdout_and_ends_with_one_newline(influence: Run) -> None:
    outcome = influence(*ONCE, "--max-tokens", "8", "--temperature", "0")
    assert outcome.exit_code == 0
    assert outcome.stderr == ""
    assert outcome.stdout == f"{reply(influence, '--max-tokens', '8', '--temperature', '0')['text']}\n"


def test_a_seed_gives_the_same_text_again_and_another_seed_another(influence: Run) -> None:
    texts = [influence(*ONCE, "--max-tokens", "24", "--seed", seed).stdout for seed in ("1", "1", "2")]
    assert texts[0] == texts[1] != texts[2]


def test_without_a_seed_one_is_drawn_and_told(influence: Run) -> None:
    first = reply(influence, "--max-tokens", "24")
    seed = first["params"]["seed"]  # type: ignore[index]
    assert seed["source"] == "random"
    assert reply(influence, "--max-tokens", "24", "--seed", str(seed["value"]))["text"] == first["text"]


def test_temperature_zero_does_not_depend_on_the_seed(influence: Run) -> None:
    greedy = {influence(*ONCE, "--temperature", "0", "--max-tokens", "16", "--seed", s).stdout for s in "123"}
    assert len(greedy) == 1


def test_every_kernel_table_and_thread_count_runs(influence: Run) -> None:
    for kernels in select.cpu_kernels():
        data = reply(
            influence, "--max-tokens", "2", "--kernels", kernels, "--threads", "1", "--device", "cpu"
        )
        assert data["engine"] == f"native {kernels}, 1 thread"


def test_the_reply_as_json_is_complete(influence: Run) -> None:
    data = reply(
        influence, "--max-tokens", "5", "--temperature", "0.5", "--stop", "never this", "--seed", "7"
    )
    assert data["finish_reason"] in ("stop", "length")
    usage = data["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]  # type: ignore[index]
    assert usage["completion_tokens"] == 5  # type: ignore[index]
    params = data["params"]
    assert params["temperature"] == {"value": 0.5, "source": "given"}  # type: ignore[index]
    assert params["stop"] == {"value": ["never this"], "source": "given"}  # type: ignore[index]
    assert params["frequency_penalty"] == {"value": 0.0, "source": "default"}  # type: ignore[index]
    assert data["model"] == MODEL
    assert data["statistics"]["first_token_s"] > 0  # type: ignore[index]


def test_a_stop_text_ends_the_completion_before_it(influence: Run) -> None:
    args = ("--temperature", "0", "--max-tokens", "40")
    whole = str(reply(influence, *args)["text"])
    word = whole.split()[4]
    cut = reply(influence, *args, "--stop", word)
    assert cut["text"] == whole[: whole.index(word)]
    assert (cut["finish_reason"], cut["stop_string"]) == ("stop", word)


def test_statistics_go_to_stderr_with_the_source_of_each_setting(influence: Run) -> None:
    outcome = influence(*ONCE, "--max-tokens", "5", "--top-k", "3", "--seed", "7", "--stats")
    lines = {line[:19].strip(): line[19:].strip() for line in outcome.stderr.splitlines()}
    assert lines["top k"] == "3 (given)"
    assert lines["presence penalty"] == "0.0 (default)"
    assert lines["seed"] == "7 (given)"
    assert "native" in lines["engine"]
    assert "tokens/s" in lines["prompt"]
    assert lines["finish reason"] == "length"
    assert "tokens/s" not in outcome.stdout


def test_the_model_s_own_settings_come_before_ours(influence: Run, model_copy: Path) -> None:
    (model_copy / "generation_config.json").write_text('{"temperature": 0.25, "top_k": 7}')
    outcome = influence(
        "generate", "Once", "-m", str(model_copy), "--raw", "--max-tokens", "1", "--top-k", "5", "--json"
    )
    params = json.loads(outcome.stdout)["params"]
    assert params["temperature"] == {"value": 0.25, "source": "generation_config.json"}
    assert params["top_k"] == {"value": 5, "source": "given"}


def test_a_dash_reads_the_prompt_from_stdin(influence: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("--temperature", "0", "--max-tokens", "8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Once upon a time\n")))
    assert influence("generate", "-", "-m", MODEL, "--raw", *args).stdout == influence(*ONCE, *args).stdout


def test_zero_tokens_are_a_completion_of_nothing(influence: Run) -> None:
    outcome = influence(*ONCE, "--max-tokens", "0")
    assert (outcome.exit_code, outcome.stdout) == (0, "\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--temperature", "-1"], "temperature is -1.0"),
        (["--temperature", "nan"], "temperature is nan"),
        (["--top-p", "2"], "top_p is 2.0"),
        (["--top-k", "-1"], "top_k is -1"),
        (["--min-p", "2"], "min_p is 2.0"),
        (["--repeat-penalty", "0"], "repeat_penalty is 0.0"),
        (["--stop", ""], "stop is ''"),
        (["--device-index", "1"], "device_index is 1"),
        (["--tensor-parallel", "2"], "only CUDA devices share a model"),
        (["--kernels", "abacus"], "kernels is 'abacus'"),
        (["--context", "1000000000"], "context is 1000000000"),
    ],
)
def test_a_value_out_of_range_is_bad_usage(influence: Run, args: list[str], said: str) -> None:
    outcome = influence(*ONCE, *args)
    assert outcome.exit_code == 2
    assert said in outcome.stderr
    assert outcome.stdout == ""


@pytest.mark.parametrize("device", ["cuda", "metal"])
def test_a_device_that_is_not_there_is_refused_with_the_reason(influence: Run, device: str) -> None:
    outcome = influence(*ONCE, "--device", device)
    assert outcome.exit_code == 1
    assert f"device '{device}' is not available" in outcome.stderr
    assert "--device cpu" in outcome.stderr


def test_a_gpu_that_auto_leaves_idle_is_mentioned(influence: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "cuda_trace", lambda: "/dev/nvidia0")
    assert "note: running on the cpu" in influence(*ONCE, "--max-tokens", "1").stderr
    assert influence(*ONCE, "--max-tokens", "1", "--device", "cpu").stderr == ""
    assert "a GPU is here (/dev/nvidia0), but" in influence(*ONCE, "--device", "cuda").stderr


def test_a_prompt_longer_than_the_context_is_an_error_with_the_numbers(influence: Run) -> None:
    outcome = influence(*ONCE, "--context", "2")
    assert outcome.exit_code == 1
    assert "but the context is 2" in outcome.stderr
    assert outcome.stdout == ""


def test_the_context_s_end_finishes_a_completion_by_length(influence: Run) -> None:
    data = reply(influence, "--context", "12", "--max-tokens", "100", "--temperature", "0")
    usage = data["usage"]
    assert data["finish_reason"] == "length"
    assert usage["total_tokens"] in (12, 13)  # type: ignore[index]


def test_too_little_memory_is_an_error_before_any_work(
    influence: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 1000)
    outcome = influence(*ONCE)
    assert outcome.exit_code == 1
    assert "1.0 kB are free" in outcome.stderr
    assert "--context" in outcome.stderr
    assert "will be read from the disk again" in outcome.stderr


def test_an_error_in_the_middle_keeps_the_text_and_ends_its_line(
    influence: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from influence.engines import native

    sample = native.NativeEngine.sample

    def broken(engine: native.NativeEngine, draws: list[native.Draw]) -> list[native.Sample]:
        if draws[0].position >= 12:
            raise NumericError("NaN", draws[0].position)
        return sample(engine, draws)

    monkeypatch.setattr(native.NativeEngine, "sample", broken)
    outcome = influence(*ONCE, "--temperature", "0")
    assert outcome.exit_code == 1
    assert outcome.stdout.strip()
    assert outcome.stdout.endswith("\n")
    assert outcome.stderr.startswith("error: the model gave NaN at position 12\nhint: ")


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_reply_is_whole_with_its_reason(
    influence: Run, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, exit_code: int
) -> None:
    shown: list[str] = []

    def add(line: output.TextLine, text: str) -> None:
        shown.append(text)
        if len(shown) == 3:
            signal.raise_signal(number)

    monkeypatch.setattr(output.TextLine, "add", add)
    before = signal.getsignal(number)
    outcome = influence(*ONCE, "--max-tokens", "500", "--json")
    data = json.loads(outcome.stdout)
    assert (outcome.exit_code, data["finish_reason"]) == (exit_code, "cancelled")
    assert data["text"] == "".join(shown)
    assert signal.getsignal(number) is before


def test_a_downloaded_model_is_found_by_its_name(
    influence: Run, model_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model_copy.parent)
    shutil.copytree(model_copy, Path("models/org_name"))
    assert influence("generate", "Once", "-m", "org/name", "--max-tokens", "1").exit_code == 0


def test_drafts_change_no_text_and_are_told_of(influence: Run) -> None:
    text = "The cat sat on the mat and the dog sat on the mat and " * 4
    told = ["generate", text, *ONCE[2:], "--temperature", "0", "--stats"]
    outcomes = [influence(*told, "--max-tokens", "40", "--draft", mode) for mode in ("ngram", "none")]
    assert outcomes[0].stdout == outcomes[1].stdout
    assert "0 tokens, 0 of them came true" in outcomes[1].stderr
    assert "came true" in outcomes[0].stderr


@pytest.mark.parametrize(("more", "n_started"), [([], 1), (["--raw"], 0)])
def test_the_templates_process_starts_before_the_model_is_opened(
    influence: Run, monkeypatch: pytest.MonkeyPatch, more: list[str], n_started: int
) -> None:
    from influence.cli import loading
    from influence.text.template_process import TemplateProcess

    started: list[TemplateProcess] = []
    start, open_model = TemplateProcess.start, loading.open_model

    def noted(process: TemplateProcess) -> None:
        started.append(process)
        start(process)

    def checked(folder: Path) -> Model:
        assert len(started) == n_started
        return open_model(folder)

    monkeypatch.setattr(TemplateProcess, "start", noted)
    monkeypatch.setattr(loading, "open_model", checked)
    outcome = influence("generate", "Hello", "-m", "demo", "--max-tokens", "1", *more)
    assert outcome.exit_code == 0
    assert len(started) == n_started
