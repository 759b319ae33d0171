"""Speed of our engines on a real shape, alone or in turns with other engines.

    python benchmarks/bench_engine.py --shape tinyllama-1.1b
    python benchmarks/bench_engine.py --shape tinyllama-1.1b --against llama-cpp-python
    python benchmarks/bench_engine.py -m models/org_name --only decode,streams --threads 8
    python benchmarks/bench_engine.py --shape tinyllama-1.1b --weights q8 --against llama-cpp-python --gguf Q8_0.gguf
    python benchmarks/bench_engine.py --shape tinyllama-1.1b --weights q8 --against ctranslate2 --against openvino
    python benchmarks/bench_engine.py --shape tinyllama-1.1b --device cuda --against transformers --against compiled
    python benchmarks/bench_engine.py --shape tiny --device torch-cpu --against transformers      a rehearsal of that

README.md beside this file says what each number means.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, get_args

import report
from agreement import N_TOKENS, Disagreement, check_agreement
from cases import GROUPS, OURS, Case, Group, Outcome, Timed, measure, suite
from engine_backend import EngineBackend
from gguf_export import NotExportable
from influence.engines import machine, native
from influence.engines.packing import PackedWeights, pack_weights
from influence.errors import InfluenceError
from influence.models.model import Model, open_model
from model_files import CACHE, count, counts, random_model, read_once, write_result
from native_backend import NativeBackend
from peer_process import PeerFailed
from peers import CONVERTED, FORMS, PEERS, peer_form, start_peer
from read_probe import ReadProbe
from report import Workload
from runner import Runner

EXACT = ("stored", "packed")  # formats that change no weight


def main() -> int:
    options = _parser().parse_args()
    try:
        run(options)
    except InfluenceError as error:
        print(f"error: {error.message}\n{error.hint}", file=sys.stderr)
        return 1
    except (PeerFailed, Disagreement, NotExportable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode  # the tool has said why
    return 0


def run(options: argparse.Namespace) -> None:
    """Open, load, check that all compute the same, then measure case by case."""
    cases = suite(
        groups=options.only,
        prompt=options.prompt,
        new_tokens=options.new_tokens,
        depth=options.depth,
        streams=options.streams or ([1, 4, 8, 16] if options.device == "cpu" else [1, 8, 16, 64, 128]),
    )
    with ExitStack() as stack:
        model = open_model(options.model or random_model(options.shape, options.dtype, options.cache))
        stack.callback(model.checkpoint.close)
        read_once(model.checkpoint.files)
        packed = _packed(options, model)
        ours = _ours(options, model, packed, cases)
        stack.callback(ours.close)
        workload = Workload.of(model, options.shape or str(options.model), packed)
        if ours.step_bytes is not None:
            workload = workload.held_as(options.weights, ours.step_bytes)
        runners = _load(options, model, ours, cases, stack)
        if options.gguf is None:  # else llama-quantize's rounding, which nothing here knows
            for agreement in check_agreement(runners, model.spec.vocab_size, _roundings(options, workload)):
                print(agreement)
        if not options.check:
            _measure_all(options, cases, runners, workload)


def _roundings(options: argparse.Namespace, workload: Workload) -> list[str]:
    """What rounds numbers: the type of the files, and each engine that holds fewer bits."""
    found = [workload.stored_dtype]
    if options.weights not in EXACT:
        found.append(options.weights)
    if set(options.against) & set(CONVERTED):
        found.append(peer_form(options))
    return found


def _measure_all(
    options: argparse.Namespace, cases: Sequence[Case], runners: dict[str, Timed], workload: Workload
) -> None:
    engines = {name: runner.description for name, runner in runners.items()}
    facts = report.describe_machine(options.threads)
    lines = [report.heading(workload, facts, engines), "", report.table_head(list(engines))]
    print("\n".join(lines), flush=True)
    outcomes: list[Outcome] = []
    with closing(_probe(options)) as probe:
        for case in cases:
            outcomes.append(
                measure(case, runners, repeat=options.repeat, probe=probe, step_bytes=workload.step_bytes)
            )
            lines.append(report.table_row(outcomes[-1], workload))
            print(lines[-1], flush=True)
    lines += ["", report.bandwidth_line(outcomes)]
    print(lines[-1])
    _write(
        options, "\n".join(lines), json.dumps(report.as_json(workload, facts, engines, outcomes), indent=2)
    )


def _probe(options: argparse.Namespace) -> Any:
    """Of the memory that the engine reads."""
    if options.device != "cuda":
        return ReadProbe(options.threads)
    from gpu_backend import GpuReadProbe

    return GpuReadProbe(f"cuda:{options.device_index}")


def _write(options: argparse.Namespace, table: str, text: str) -> None:
    if options.json:
        options.json.write_text(text + "\n")
    if options.save:
        write_result(options.save, table, text)


def _packed(options: argparse.Namespace, model: Model) -> PackedWeights | None:
    if options.weights == "stored" or options.device != "cpu":
        return None
    return pack_weights(
        model.weights,
        options.weights,
        folder=model.folder,
        fingerprint=model.checkpoint.fingerprint(),
        kernels=native.checked_kernels(options.kernels),
        threads=options.threads,
    )


def _load(
    options: argparse.Namespace, model: Model, ours: EngineBackend, cases: Sequence[Case], stack: ExitStack
) -> dict[str, Timed]:
    """Ours and the peers, in the order of their turns."""
    runners: dict[str, Timed] = {OURS: Runner(ours)}
    for peer in options.against:
        runner = start_peer(peer, options, model, _context(cases))
        stack.callback(runner.close)
        runners[PEERS[peer]] = runner
    return runners


def _context(cases: Sequence[Case]) -> int:
    """Positions that a sequence needs at most."""
    return max(N_TOKENS, *(case.context for case in cases))


def _ours(
    options: argparse.Namespace, model: Model, packed: PackedWeights | None, cases: Sequence[Case]
) -> EngineBackend:
    context = _context(cases)
    kv_positions = max(N_TOKENS, *(case.context * case.n_streams for case in cases))
    if options.device != "cpu":
        from gpu_backend import GpuBackend
        from influence.engines.torch.parallel.commands import RankDevice

        indices = range(options.device_index, options.device_index + options.tensor_parallel)
        ranks = [RankDevice("cuda" if options.device == "cuda" else "cpu", index) for index in indices]
        return GpuBackend(model, ranks, context=context, kv_positions=kv_positions, form=options.weights)
    return NativeBackend(
        model,
        threads=options.threads,
        kernels=options.kernels,
        kv_positions=kv_positions,
        context=context,
        packed=packed,
    )


def _groups(text: str) -> list[Group]:
    names = text.split(",")
    if not names or set(names) - set(get_args(Group)):
        raise argparse.ArgumentTypeError(f"give some of {', '.join(GROUPS)}, with commas between")
    return [group for group in GROUPS if group in names]


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
    add(
        "--device",
        choices=("cpu", "cuda", "torch-cpu"),
        default="cpu",
        help="where ours and transformers run; torch-cpu: our GPU engine without a GPU, to rehearse a run on one",
    )
    add("--device-index", type=int, default=0, metavar="N", help="which GPU")
    add("--tensor-parallel", type=count, default=1, metavar="N", help="how many GPUs share our model")
    add(
        "--cache",
        type=Path,
        default=CACHE,
        help="where random models and GGUF files go",
    )
    add(
        "--weights",
        choices=("stored", "packed", "q8", "q4"),
        default="stored",
        help="how our engine holds the weights (default: %(default)s)",
    )
    add(
        "--gguf",
        type=Path,
        metavar="FILE",
        help="what llama.cpp runs, made of the same model's export by its own llama-quantize"
        "  (default: the export itself)",
    )
    add(
        "--peer-weights",
        choices=FORMS,
        help="how CTranslate2 and OpenVINO hold theirs (default: in as many bits as we)",
    )
    add("--only", type=_groups, default=list(GROUPS), metavar="GROUPS", help=f"some of {','.join(GROUPS)}")
    add("--prompt", type=count, default=512, help="tokens of the prefill (default: %(default)s)")
    add("--new-tokens", type=count, default=64, help="tokens decoded in each turn (default: %(default)s)")
    add(
        "--depth",
        type=count,
        default=2048,
        help="tokens held where deep decode is timed (default: %(default)s)",
    )
    add(
        "--streams",
        type=counts,
        help="sequences decoded together (default: 1,4,8,16; on a GPU 1,8,16,64,128)",
    )
    add("--repeat", type=count, default=3, help="turns of each engine at each case (default: %(default)s)")
    add("--threads", type=count, default=machine.usable_cores(), help="default: the usable cores")
    add("--kernels", help="a kernel table by name (default: the best for this CPU)")
    add(
        "--against",
        action="append",
        choices=PEERS,
        default=[],
        help="take turns with this engine; may be repeated",
    )
    add(
        "--peer-python",
        type=Path,
        default=Path(sys.executable),
        help="the Python that has the peer's packages",
    )
    add(
        "--flash-attention",
        choices=("auto", "on", "off"),
        default="auto",
        help="llama.cpp's (default: %(default)s)",
    )
    add(
        "--no-repack",
        action="store_true",
        help="llama.cpp takes quantised weights as they lie; for CPUs on which its AMX kernels crash",
    )
    add("--check", action="store_true", help="only check that all engines give the same logits")
    add("--json", type=Path, metavar="FILE", help="write every number there")
    add("--save", metavar="NAME", help="write table and numbers to benchmarks/results/NAME.md and .json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
