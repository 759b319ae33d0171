"""What a program that imports influence may rely on."""

from __future__ import annotations

import inspect
import tomllib
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import FunctionType

import pytest

import influence
from support.cli import run_python

PROJECT = Path(__file__).resolve().parent.parent

# Module -> the names and parameters that keep their meaning between versions.
SIGNATURES = {
    "influence.models.model": {"open_model": "folder"},
    "influence.text.tokenizer": {
        "Tokenizer.load": "folder",
        "Tokenizer.encode": "self text add_special_tokens parse_special",
        "Tokenizer.decode": "self token_ids skip_special_tokens",
    },
    "influence.text.chat_template": {
        "ChatTemplate.render": "self messages tools documents add_generation_prompt name variables",
    },
    "influence.engines.select": {
        "load_engine": "model device device_index tensor_parallel threads kernels context kv_bytes n_sessions gpu_memory kv_type weights packed_folder on_note",
        "devices": "",
    },
    "influence.engines.base": {
        "Engine.new_session": "self context",
        "Engine.forward": "self steps",
        "Engine.logits": "self",
        "Engine.sample": "self draws",
        "Session.rewind": "self position",
        "Session.fork": "self position",
    },
    "influence.generation.params": {"resolve_params": "given model_defaults"},
    "influence.generation.prompt": {"build_prompt": "tokenizer template prompt system raw"},
    "influence.generation.generator": {
        "Generator.submit": "self prompt_ids params context constraint salt on_event",
        "Generator.close": "self",
    },
}

STORY = """
from influence.engines.select import load_engine
from influence.generation.generator import Generator
from influence.generation.params import resolve_params
from influence.generation.prompt import build_prompt
from influence.models.model import open_model
from influence.text.chat_template import ChatTemplate
from influence.text.tokenizer import Tokenizer
from influence import demo

folder = demo.folder()
model, tokenizer = open_model(folder), Tokenizer.load(folder)
template = ChatTemplate.load(folder, tokenizer.special_tokens)
prompt = build_prompt(tokenizer, template, "Tell me a story.")
params = resolve_params({"max_tokens": 8, "seed": 1}, model.generation_config).params
with Generator(load_engine(model), tokenizer, tokenizer.eos_ids) as generator:
    print(generator.submit(prompt.token_ids, params).collect().text)
"""


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert influence.__version__ == project["version"]


def test_the_package_says_that_it_is_typed() -> None:
    assert files("influence").joinpath("py.typed").is_file()


def test_importing_influence_loads_none_of_its_parts() -> None:
    done = run_python("import sys, influence; print([m for m in sys.modules if m.startswith('influence.')])")
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("module", "name", "parameters"),
    [(module, name, text) for module, names in SIGNATURES.items() for name, text in names.items()],
)
def test_a_public_function_keeps_its_parameters(module: str, name: str, parameters: str) -> None:
    found = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert isinstance(getattr(found, "__func__", found), FunctionType)
    assert list(inspect.signature(found).parameters) == parameters.split()  # type: ignore[arg-type]


@pytest.mark.parametrize("module", SIGNATURES)
def test_what_is_public_is_documented_and_annotated(module: str) -> None:
    found = import_module(module)
    for name, value in vars(found).items():
        if not name.startswith("_") and getattr(value, "__module__", "") == module:
            assert value.__doc__ or not callable(value), name
            if isinstance(value, FunctionType):
                parameters = inspect.signature(value).parameters.values()
                assert all(p.annotation is not p.empty for p in parameters), name


def test_every_error_says_what_to_do_and_is_of_the_one_tree() -> None:
    from influence import errors

    found = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(found) > 30
    assert all(issubclass(kind, errors.InfluenceError) for kind in found)
    assert errors.InfluenceError("what", hint="do this").hint == "do this"


def test_a_program_tells_a_story_in_a_dozen_lines() -> None:
    done = run_python(STORY)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
