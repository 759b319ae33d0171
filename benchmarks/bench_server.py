"""Our HTTP server under load, alone or in turns with another OpenAI-compatible one.

    python benchmarks/bench_server.py --shape tinyllama-1.1b --clients 1,4,16
    python benchmarks/bench_server.py --shape tinyllama-1.1b --llama-server PATH/llama-server
    python benchmarks/bench_server.py --shape tinyllama-1.1b --clients 1 --direct
    python benchmarks/bench_server.py -m models/org_name --baseline http://127.0.0.1:9000

README.md beside this file says what each number means.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from random import Random

import report
import server_report
from contention import Moment, share_of_others
from gguf_export import NotExportable
from influence.engines import machine
from influence.errors import InfluenceError
from influence.models.model import Model, open_model
from made_vocabulary import FIRST_WORD, vocabulary, write_tokenizer
from model_files import CACHE, count, counts, gguf_of, random_model, read_once, write_result
from report import Workload
from server_process import RunningServer, Server, ServerFailed, llama_server, no_server, our_server
from server_report import OURS, Case, Outcome, Turn

_SPARE_POSITIONS = 64  # a server may round up, or add a token of its own


def main() -> int:
    options = _parser().parse_args()
    try:
        run(options)
    except InfluenceError as error:
        print(f"error: {error.message}\n{error.hint}", file=sys.stderr)
        return 1
    except (ServerFailed, NotExportable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode  # the tool has said why
    return 0


def run(options: argparse.Namespace) -> None:
    """Start the servers, warm them, then load them in turns, case by case."""
    cases = [Case(n, options.prompt, options.new_tokens, options.requests) for n in options.clients]
    with ExitStack() as stack:
        model = open_model(options.model or random_model(options.shape, options.dtype, options.cache))
        stack.callback(model.checkpoint.close)
        if options.shape:
            write_tokenizer(model.folder, model.spec.vocab_size)
        read_once(model.checkpoint.files)
        servers = _start(options, model, stack)
        for server in servers.values():
            _turn(server, Case(1, 8, 4, 1), model.spec.vocab_size, seed=0)
        _measure_all(options, cases, servers, Workload.of(model, options.shape or str(options.model)), model)


def _start(options: argparse.Namespace, model: Model, stack: ExitStack) -> dict[str, Server]:
    """Ours and the baseline, in the order of their turns."""
    n_clients = max(options.clients)
    context = options.prompt + options.new_tokens + _SPARE_POSITIONS
    servers = {OURS: stack.enter_context(our_server(model.folder, options.threads, n_clients, context))}
    if options.llama_server:
        gguf = gguf_of(model, options.cache, vocabulary(model.spec.vocab_size))
        peer = llama_server(options.llama_server, gguf, options.threads, n_clients, context)
        servers["llama-server"] = stack.enter_context(peer)
    if options.direct:
        servers["no server"] = no_server(model.folder, options.threads, context)
    if options.baseline:
        servers["baseline"] = stack.enter_context(RunningServer(options.baseline))
    return servers


def _measure_all(
    options: argparse.Namespace,
    cases: list[Case],
    servers: dict[str, Server],
    workload: Workload,
    model: Model,
) -> None:
    facts = report.describe_machine(options.threads)
    engines = {name: server.description for name, server in servers.items()}
    lines = [report.heading(workload, facts, engines), "", server_report.table_head()]
    print("\n".join(lines), flush=True)
    outcomes = []
    for case in cases:
        outcome = _measure(case, servers, options.repeat, model.spec.vocab_size)
        outcomes.append(outcome)
        lines += server_report.table_rows(outcome)
        print("\n".join(lines[-len(servers) :]), flush=True)
    text = json.dumps(server_report.as_json(workload, facts, engines, outcomes), indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    if options.save:
        write_result(options.save, "\n".join(lines), text)


def _measure(case: Case, servers: dict[str, Server], repeat: int, vocab_size: int) -> Outcome:
    outcome = Outcome(case, {name: [] for name in servers})
    for seed in range(1, repeat + 1):
        for name, server in servers.items():
            outcome.turns[name].append(_turn(server, case, vocab_size, seed))
    return outcome


def _turn(server: Server, case: Case, vocab_size: int, seed: int) -> Turn:
    """All clients at once, in a process of their own.

    Prompts are random and differ in everything, so that no server has computed a part of one
    before; each server gets the same ones.
    """
    random = Random(f"{seed} {case}")
    clients = [
        [[random.randrange(FIRST_WORD, vocab_size) for _ in range(case.prompt)] for _ in range(case.requests)]
        for _ in range(case.clients)
    ]
    task = {**server.place, "new_tokens": case.new_tokens, "clients": clients}
    command: list[str | Path] = [sys.executable, Path(__file__).parent / server.client]
    before = Moment.now()
    done = subprocess.run(command, input=json.dumps(task), stdout=subprocess.PIPE, text=True, check=True)
    return Turn(json.loads(done.stdout), share_of_others(before, Moment.now()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--shape", help="a shape of tools/make_random_model.py; made on first use")
    which.add_argument("-m", "--model", type=Path, help="a model folder")
    add(
        "--dtype",
        choices=("bf16", "f16", "f32"),
        default="bf16",
        help="of a random model (default: %(default)s)",
    )
    add("--cache", type=Path, default=CACHE, help="where random models and GGUF files go")
    add("--clients", type=counts, default=[16], help="clients at once, as 1,4,16 (default: 16)")
    add("--prompt", type=count, default=128, help="tokens of each prompt (default: %(default)s)")
    add("--new-tokens", type=count, default=64, help="tokens of each reply (default: %(default)s)")
    add(
        "--requests", type=count, default=1, help="requests of each client, one by one (default: %(default)s)"
    )
    add("--repeat", type=count, default=3, help="turns of each server at each case (default: %(default)s)")
    add("--threads", type=count, default=machine.usable_cores(), help="default: the usable cores")
    add("--baseline", metavar="URL", help="take turns with an OpenAI-compatible server that runs there")
    add(
        "--llama-server",
        type=Path,
        metavar="PROGRAM",
        help="take turns with llama.cpp's server, started here",
    )
    add(
        "--direct",
        action="store_true",
        help="take turns with our generator without a server, one client after another: what HTTP costs",
    )
    add("--json", type=Path, metavar="FILE", help="write every number there")
    add("--save", metavar="NAME", help="write table and numbers to benchmarks/results/NAME.md and .json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
