"""`influence generate`: one prompt in, streamed text out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from influence.cli import interrupts, options, output
from influence.cli.options import EngineOptions
from influence.cli.prompt_input import read_prompt
from influence.cli.structure import compiled, read_structure
from influence.dataclass import dataclass

if TYPE_CHECKING:
    from influence.cli.loading import TextModel
    from influence.generation.constraint import ConstraintSource
    from influence.generation.events import Finished, Stream
    from influence.generation.params import ResolvedParams
    from influence.generation.prompt import Prompt
    from influence.generation.structured import ConstraintSpec
    from influence.text.template_process import TemplateProcess


@dataclass(frozen=True)
class Request:
    """All that is decided before the engine is loaded."""

    loaded: TextModel
    prompt: Prompt
    resolved: ResolvedParams
    context: int
    constraint: ConstraintSource | None  # what the text must keep to


@dataclass(frozen=True)
class Reply:
    """What came of a request."""

    text: str
    end: Finished
    engine: str  # its description


@click.command()
@click.argument("prompt", type=options.text)
@options.model_option
@options.system_option
@options.raw_option
@options.json_schema_option
@options.regex_option
@options.sampling_options
@options.engine_options
@click.option(
    "--stats", is_flag=True, help="Afterwards, tell the speed and where each setting came from (stderr)."
)
@options.json_option
@click.pass_obj
def generate(
    renderer: TemplateProcess | None,
    prompt: str,
    model_path: str,
    system: str | None,
    raw: bool,
    json_schema: str | None,
    regex: str | None,
    sampling: dict[str, Any],
    engine: EngineOptions,
    stats: bool,
    as_json: bool,
) -> None:
    """Continue or answer PROMPT with a model on this machine.

    PROMPT `-` reads standard input (UTF-8, at most 16 MiB, one newline at its
    end left out). Text goes to stdout as it comes, then one newline.

    \b
    influence generate "Once upon a time" -m demo
    influence generate "Why is the sky blue?" -m models/my_model --temperature 0
    cat letter.txt | influence generate - -m ORG/NAME --system "Answer in one sentence."
    influence generate "Who lives in the castle?" -m demo --json-schema hero.json

    Settings that you leave out are the model's own (generation_config.json),
    or else the defaults below. A model with a chat template gets PROMPT as a
    user's message in it. Generation ends at the model's end token, a --stop
    text, --max-tokens or the end of the context; --stats says which. With
    --json-schema or --regex no other text can come about, whatever the model
    prefers; only --max-tokens and the context can cut it off, which is told.

    Exit codes: 0 done, 1 failed, 2 bad usage, 130 stopped by Ctrl-C (what
    there is gets printed), 143 by SIGTERM.
    """
    text = read_prompt(prompt)
    structure = read_structure(json_schema, regex)
    with output.spinner(f"loading {model_path}") as spinner:
        renderer = None if raw else _started(renderer)
        request = _prepare(text, model_path, system, renderer, sampling, structure, engine)
        reply, exit_code = _run(request, engine, spinner, show_text=not as_json)
    if as_json:
        output.write_json(_as_json(request, reply))
    if stats:
        output.say(_statistics_text(request, reply))
    if request.constraint is not None and reply.end.finish_reason == "length":
        output.say("note: the text is cut off: give more --max-tokens for all of it")
    if exit_code:
        raise click.exceptions.Exit(exit_code)


def _started(renderer: TemplateProcess | None) -> TemplateProcess:
    """The process for the chat template: the one that was started ahead, or a new one."""
    if renderer is None:
        from influence.text.template_process import TemplateProcess

        renderer = TemplateProcess()
        renderer.start()  # it takes as long to be ready as the modules for a model take to be imported
    return renderer


def _prepare(
    prompt: str,
    model_path: str,
    system: str | None,
    renderer: TemplateProcess | None,
    sampling: dict[str, Any],
    structure: ConstraintSpec | None,
    engine: EngineOptions,
) -> Request:
    from influence.cli.loading import context_for, open_text_model
    from influence.generation.params import resolve_params
    from influence.generation.prompt import build_prompt

    loaded = open_text_model(model_path, renderer, engine)
    resolved = resolve_params(sampling, loaded.model.generation_config)
    built = build_prompt(loaded.tokenizer, loaded.template, prompt, system=system, raw=renderer is None)
    n_tokens = len(built.token_ids) + resolved.params.max_tokens
    constraint = None if structure is None else compiled(structure, loaded)
    return Request(loaded, built, resolved, context_for(loaded.model, n_tokens, engine.context), constraint)


def _run(
    request: Request, engine_options: EngineOptions, spinner: output.Spinner, *, show_text: bool
) -> tuple[Reply, int]:
    """The reply, shown as it comes, and the exit code: 0 unless a signal ended it."""
    from influence.cli.loading import notes, running

    for note in notes(request.loaded, engine_options):
        spinner.say(f"note: {note}")
    with running(request.loaded, engine_options, request.context, on_note=spinner.say) as (engine, generator):
        stream = generator.submit(
            request.prompt.token_ids,
            request.resolved.params,
            context=request.context,
            constraint=None if request.constraint is None else request.constraint.new(),
        )
        with interrupts.cancelling(stream) as interruption:
            text, end = _receive(stream, spinner, show_text=show_text)
        return Reply(text, end, engine.description), interruption.exit_code


def _receive(stream: Stream, spinner: output.Spinner, *, show_text: bool) -> tuple[str, Finished]:
    from influence.generation.events import Finished, TextDelta

    pieces: list[str] = []
    end = None
    with output.TextLine(shown=show_text) as line:
        for event in stream:
            spinner.stop()
            if isinstance(event, Finished):
                end = event
            elif isinstance(event, TextDelta):
                pieces.append(event.text)
                line.add(event.text)
    if end is None:
        raise RuntimeError("the stream ended without its last event")
    return "".join(pieces), end


def _as_json(request: Request, reply: Reply) -> dict[str, Any]:
    statistics = reply.end.statistics
    return {
        "text": reply.text,
        "finish_reason": reply.end.finish_reason,
        "stop_string": reply.end.stop_string,
        "usage": {
            "prompt_tokens": statistics.prompt_tokens,
            "completion_tokens": statistics.completion_tokens,
            "total_tokens": statistics.prompt_tokens + statistics.completion_tokens,
        },
        "params": {
            name: {"value": value, "source": request.resolved.sources[name]}
            for name, value in _settings(request.resolved).items()
        },
        "statistics": {
            "first_token_s": statistics.first_token_s,
            "prefill_s": statistics.prefill_s,
            "decode_s": statistics.decode_s,
            "prefill_tokens_per_s": statistics.prefill_tokens_per_s,
            "decode_tokens_per_s": statistics.decode_tokens_per_s,
            "drafted_tokens": statistics.drafted_tokens,
            "accepted_tokens": statistics.accepted_tokens,
        },
        "model": request.loaded.name,
        "engine": reply.engine,
        "context": request.context,
        "used_template": request.prompt.used_template,
    }


def _settings(resolved: ResolvedParams) -> dict[str, Any]:
    """The values that a user of this command can set, by name."""
    params, chosen = resolved.params, resolved.params.sampling
    return {
        "max_tokens": params.max_tokens,
        "temperature": chosen.temperature,
        "top_k": chosen.top_k,
        "top_p": chosen.top_p,
        "min_p": chosen.min_p,
        "repeat_penalty": chosen.repeat_penalty,
        "presence_penalty": chosen.presence_penalty,
        "frequency_penalty": chosen.frequency_penalty,
        "seed": chosen.seed,
        "stop": list(params.stop),
    }


def _statistics_text(request: Request, reply: Reply) -> str:
    statistics = reply.end.statistics
    template = "in the model's chat template" if request.prompt.used_template else "as it is"
    rows = [
        ("model", f"{request.loaded.name} ({request.loaded.model.model_type})"),
        ("engine", f"{reply.engine}; context {request.context}"),
        ("prompt", f"{statistics.prompt_tokens} tokens, {template}{_speed(statistics.prefill_tokens_per_s)}"),
        ("completion", f"{statistics.completion_tokens} tokens{_speed(statistics.decode_tokens_per_s)}"),
        ("drafted", f"{statistics.drafted_tokens} tokens, {statistics.accepted_tokens} of them came true"),
        ("first token", "none" if statistics.first_token_s is None else f"{statistics.first_token_s:.3f} s"),
        ("finish reason", _finish(reply.end)),
        *(
            (name.replace("_", " "), f"{_shown(value)} ({request.resolved.sources[name]})")
            for name, value in _settings(request.resolved).items()
        ),
    ]
    return output.columns(rows)


def _speed(tokens_per_s: float | None) -> str:
    return f", {tokens_per_s:.1f} tokens/s" if tokens_per_s is not None else ""


def _finish(end: Finished) -> str:
    return end.finish_reason if end.stop_string is None else f"{end.finish_reason} at {end.stop_string!r}"


def _shown(value: Any) -> str:
    return " ".join(repr(text) for text in value) or "none" if isinstance(value, list) else f"{value}"
