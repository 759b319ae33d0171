"""The command as a whole: quick to start, one shape of help and errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import click
import pytest

from influence import __version__
from influence.cli.main import influence as cli
from support.cli import MODEL, Outcome, run_python

HEAVY = {"numpy", "tokenizers", "jinja2", "psutil", "rich", "torch", "subprocess", "socket", "asyncio"}
NEVER = {"torch", "transformers", "safetensors", "huggingface_hub", "requests", "httpx", "httpx2", "rich"}

MODULES_AFTER = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from influence.cli.main import main
with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
    exit_codes = [main(arguments) for arguments in {runs}]
print(json.dumps([exit_codes, sorted(sys.modules)]))
"""


def exit_codes_and_modules(*runs: list[str]) -> tuple[list[int], set[str]]:
    """Of one process that runs the commands in turn: how each ended, and the modules imported."""
    done = run_python(MODULES_AFTER.format(runs=list(runs)))
    assert done.returncode == 0, done.stderr
    exit_codes, modules = json.loads(done.stdout)
    return exit_codes, set(modules)


def below(package: str, modules: set[str]) -> set[str]:
    return {name for name in modules if name.startswith(f"{package}.")}


def commands() -> Iterator[tuple[str, ...]]:
    """The words of every command."""

    def below(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            yield (*words, name)
            if isinstance(command, click.Group):
                yield from below(command, (*words, name))

    yield from below(cli, ())


def test_help_and_usage_errors_import_nothing_heavy() -> None:
    helps = [["--help"], *([*words, "--help"] for words in commands())]
    mistakes = [["generate", "x"], ["generate", "--bogus"], ["nonsense"]]
    exit_codes, loaded = exit_codes_and_modules(*helps, *mistakes)
    assert exit_codes == [0] * len(helps) + [2] * len(mistakes)
    assert loaded & HEAVY == set()


def test_the_list_of_commands_imports_none_of_them() -> None:
    exit_codes, loaded = exit_codes_and_modules(["--help"], ["--version"])
    assert exit_codes == [0, 0]
    assert below("influence.cli.commands", loaded) == set()
    assert loaded & {"json", "pathlib", "dataclasses"} == {"json"}  # the probe's own


def test_a_model_s_family_alone_is_imported() -> None:
    exit_codes, loaded = exit_codes_and_modules(["inspect", "model", "-m", MODEL])
    assert exit_codes == [0]
    assert below("influence.models.families", loaded) == {"influence.models.families.llama"}


def test_a_plain_generation_imports_nothing_that_takes_long_to_import() -> None:
    command = ["generate", "Once", "-m", MODEL, "--max-tokens", "80", "--top-k", "9", "--top-p", "0.9"]
    exit_codes, loaded = exit_codes_and_modules(command, [*command, "--temperature", "0"])
    assert exit_codes == [0, 0]
    assert loaded & {"numpy", "psutil", "hashlib", "shutil", "tempfile", "logging", "concurrent"} == set()


def test_no_command_imports_a_foreign_engine_or_a_client() -> None:
    exit_codes, loaded = exit_codes_and_modules(
        ["generate", "Once", "-m", MODEL, "--max-tokens", "1"],
        ["inspect", "prompt", "Once", "-m", MODEL],
        ["inspect", "model", "-m", MODEL],
    )
    assert exit_codes == [0, 0, 0]
    assert loaded & NEVER == set()


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_help_has_an_example_and_says_what_each_option_does(
    influence: Callable[..., Outcome], words: tuple[str, ...]
) -> None:
    outcome = influence(*words, "--help")
    assert outcome.exit_code == 0
    assert f"\n  influence {words[0]} " in outcome.stdout.partition("\n")[2]
    command: click.Command | None = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_the_version_is_the_package_s(influence: Callable[..., Outcome]) -> None:
    assert influence("--version").stdout == f"influence {__version__}\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["--bogus"], "No such option '--bogus'"),
        (["generate"], "Missing argument 'PROMPT'"),
        (["generate", "x"], "the model path is not provided"),
        (["generate", "x", "-m", ""], "the model path is not provided"),
        (["generate", "x", "-m", "demo", "--bogus"], "No such option '--bogus'"),
        (["generate", "x", "-m", "demo", "--device", "tpu"], "'tpu' is not one of"),
        (["generate", "x", "-m", "demo", "--max-tokens", "many"], "'many' is not a valid integer"),
        (["generate", "x", "-m", "demo", "--max-tokens", "-1"], "-1 is not in the range"),
        (["generate", "x", "-m", "demo", "--threads", "0"], "0 is not in the range"),
        (["generate", "x", "-m", "demo", "--device-index", "-1"], "-1 is not in the range"),
        (["generate", "x\udcff", "-m", MODEL], "character 1 is not UTF-8"),
        (["inspect", "nonsense"], "No such command 'nonsense'"),
        (["inspect", "model"], "the model path is not provided"),
    ],
)
def test_bad_usage_exits_2_and_says_what_to_do(
    influence: Callable[..., Outcome], args: list[str], said: str
) -> None:
    outcome = influence(*args)
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert outcome.stderr.startswith("error: ")
    assert said in outcome.stderr
    assert "\nhint: " in outcome.stderr


def test_no_command_at_all_shows_the_help(influence: Callable[..., Outcome]) -> None:
    outcome = influence()
    assert outcome.exit_code == 2
    assert "Commands:" in outcome.stderr


def test_an_unexpected_exception_is_told_as_a_bug(
    influence: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("influence.cli.model_path.find_model", broken)
    outcome = influence("inspect", "model", "-m", "demo")
    assert outcome.exit_code == 1
    assert "this is a bug in influence: ZeroDivisionError" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    traced = influence("--traceback", "inspect", "model", "-m", "demo")
    assert "Traceback (most recent call last)" in traced.stderr
