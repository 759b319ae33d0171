"""Makes the demo model: a small Llama that tells stories, from text that a grammar writes.

    python -m tools.train_demo --minutes 30          train, and write src/influence/demo/model
    python -m tools.train_demo --heldout             write tests/demo/heldout.txt

Everything follows from the seed: the documents, the tokenizer trained on them,
the weights at the start, and the order of the batches. (Threads and the number
of steps that fit into the minutes still vary; `--steps` pins the latter.)
The text comes from `tools.storyteller`; no foreign text goes in.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.distributed as dist
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tools.storyteller.conversation import Message, chat, document, plain_story

PROJECT = Path(__file__).resolve().parent.parent
MODEL_FOLDER = PROJECT / "src" / "influence" / "demo" / "model"
HELDOUT_FILE = PROJECT / "tests" / "demo" / "heldout.txt"

BEGIN, END, SYSTEM, USER, ASSISTANT = (
    "<|begin|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
)
SPECIAL_TOKENS = (BEGIN, END, SYSTEM, USER, ASSISTANT)
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

VOCAB_SIZE = 1536
CONTEXT = 1024
TOKENS_PER_BATCH = 4096  # of one worker
HELDOUT_SEED = 1_000_000_000  # training documents are numbered from 0 and never get there
IGNORED = -100  # the label of a token that is given, not learned


@dataclass(frozen=True, slots=True)
class Example:
    """A document as ids; the first `n_given` of each learned span's context carry no loss."""

    ids: list[int]
    labels: list[int]  # ids, or IGNORED


def render(messages: list[Message]) -> str:
    """A conversation as the chat template writes it, without the generation prompt."""
    return BEGIN + "".join(f"<|{m['role']}|>{m['content']}{END}" for m in messages)


def text_of(number: int) -> str:
    """Training document `number`, as the tokenizer's trainer reads it."""
    made = document(Random(number))
    return made if isinstance(made, str) else "\n".join(message["content"] for message in made)


def id_of(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that the tokenizer has."""
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise KeyError(f"the tokenizer lacks {token!r}")
    return token_id


def train_tokenizer(n_documents: int = 12_000) -> Tokenizer:
    """A byte-level BPE of VOCAB_SIZE tokens that puts BEGIN before a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(map(text_of, range(n_documents)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, id_of(tokenizer, BEGIN))]
    )
    return tokenizer


def example_of(number: int, tokenizer: Tokenizer) -> Example:
    """Training document `number` as ids; in a conversation only the answers are learned."""
    made = document(Random(number))
    return _plain_example(made, tokenizer) if isinstance(made, str) else _chat_example(made, tokenizer)


def _plain_example(text: str, tokenizer: Tokenizer) -> Example:
    ids = [*tokenizer.encode(text).ids, id_of(tokenizer, END)]
    return Example(ids, [IGNORED, *ids[1:]])


def _chat_example(messages: list[Message], tokenizer: Tokenizer) -> Example:
    ids, labels = [id_of(tokenizer, BEGIN)], [IGNORED]
    for message in messages:
        content = tokenizer.encode(message["content"], add_special_tokens=False).ids
        content.append(id_of(tokenizer, END))
        learned = message["role"] == "assistant"
        ids += [id_of(tokenizer, f"<|{message['role']}|>"), *content]
        labels += [IGNORED, *(content if learned else [IGNORED] * len(content))]
    return Example(ids, labels)


def batches(
    tokenizer: Tokenizer, first: int, *, share: int = 0, n_shares: int = 1, pool_size: int = 512
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of about TOKENS_PER_BATCH positions, documents from number `first` on.

    Pools of documents are dealt out in turn; this gives the batches of pool
    `share`, `share` + `n_shares`, ...

    Documents of like length share a batch, so that little of it is padding and
    none sees another; padding stands at the right, where causality hides it.
    """
    rng = Random(first)
    first += share * pool_size
    while True:
        examples = [example_of(first + i, tokenizer) for i in range(pool_size)]
        first += n_shares * pool_size
        groups = _group_by_length([e for e in examples if len(e.ids) <= CONTEXT])
        rng.shuffle(groups)
        yield from map(_pad, groups)


def _group_by_length(examples: list[Example]) -> list[list[Example]]:
    groups: list[list[Example]] = [[]]
    for example in sorted(examples, key=lambda e: len(e.ids)):
        if (len(groups[-1]) + 1) * len(example.ids) > TOKENS_PER_BATCH:
            groups.append([])
        groups[-1].append(example)
    return groups


def _pad(examples: list[Example]) -> tuple[Tensor, Tensor]:
    width = -(-max(len(e.ids) for e in examples) // 32) * 32
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    labels = torch.full((len(examples), width), IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        labels[row, : len(example.labels)] = torch.tensor(example.labels)
    return ids, labels


def build_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    """An untrained Llama of about 1.9 million parameters."""
    begin, end = id_of(tokenizer, BEGIN), id_of(tokenizer, END)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=begin,
        eos_token_id=end,
        initializer_range=0.04,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def loss_of(model: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log likelihood of the learned tokens, in nats; the head runs on those alone."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        targets = labels[:, 1:]
        learned = targets != IGNORED
        logits = model.lm_head(hidden[learned])
    return torch.nn.functional.cross_entropy(logits.float(), targets[learned])


class Optimizers:
    """Muon (Jordan et al. 2024) for the layers' matrices, AdamW for embedding and norms."""

    def __init__(self, model: LlamaForCausalLM, peak: float) -> None:
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        others = [p for name, p in named if p.ndim != 2 or "embed" in name]
        self.all = (
            torch.optim.Muon(matrices, lr=0.02 * peak, weight_decay=0.02, momentum=0.95),
            torch.optim.AdamW(others, lr=4e-3 * peak, betas=(0.9, 0.95), weight_decay=0.0),
        )
        self._peaks = [optimizer.param_groups[0]["lr"] for optimizer in self.all]

    def step(self, progress: float) -> None:
        """One update at `progress` (0 to 1) through training: short warm-up, then a cosine to 2 %."""
        warm = min(1.0, progress / 0.02)
        factor = warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
        for optimizer, peak in zip(self.all, self._peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


@dataclass(frozen=True, slots=True)
class Budget:
    """When training ends: after so many steps, or else so many minutes."""

    minutes: float
    steps: int | None

    def progress(self, step: int, started: float) -> float:
        if self.steps is not None:
            return step / self.steps
        return (time.monotonic() - started) / 60 / self.minutes


def train(model: LlamaForCausalLM, tokenizer: Tokenizer, budget: Budget, *, first: int, peak: float) -> None:
    """Trains until the budget is spent, every worker on its own batches; the first one prints the loss."""
    rank, n_workers = dist.get_rank(), dist.get_world_size()
    model.model.compile(dynamic=True)
    optimizers = Optimizers(model, peak)
    source = batches(tokenizer, first=first, share=rank, n_shares=n_workers)
    _compile_now(model, source)
    started, step, n_tokens = time.monotonic(), 0, 0
    while (progress := _agreed(budget.progress(step, started))) < 1:
        ids, labels = next(source)
        loss = loss_of(model, ids, labels)
        torch.autograd.backward(loss)
        _average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(progress)
        step, n_tokens = step + 1, n_tokens + ids.numel() * n_workers
        if step % 50 == 0 and rank == 0:
            rate = n_tokens / (time.monotonic() - started)
            print(f"step {step:5}  {progress:4.0%}  loss {loss.item():.4f}  {rate:,.0f} tokens/s", flush=True)


def _compile_now(model: LlamaForCausalLM, source: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Two passes without an update (the second of another shape), so that the minutes count training alone."""
    for _ in range(2):
        torch.autograd.backward(loss_of(model, *next(source)))
        model.zero_grad(set_to_none=True)


def _agreed(progress: float) -> float:
    """The first worker's progress, so that all stop at one step."""
    value = torch.tensor([progress], dtype=torch.float64)
    dist.broadcast(value, src=0)
    return float(value)


def _average_gradients(model: LlamaForCausalLM) -> None:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def heldout_loss(model: LlamaForCausalLM, tokenizer: Tokenizer, n_batches: int = 12) -> float:
    """Mean loss on documents that training never saw."""
    source = batches(tokenizer, first=HELDOUT_SEED)
    with torch.no_grad():
        return sum(float(loss_of(model, *next(source))) for _ in range(n_batches)) / n_batches


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the Hugging Face folder, weights in bf16."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.use_cache = True
    end = id_of(tokenizer, END)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, top_p=0.95, bos_token_id=id_of(tokenizer, BEGIN), eos_token_id=end
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": BEGIN, "eos_token": END}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
        **names,
    }
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    _write_json(folder / "special_tokens_map.json", names)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def check(folder: Path) -> None:
    """Loads the folder as a user would, compares the chat format, and prints what the model says."""
    loaded = PreTrainedTokenizerFast.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    request = [{"role": "user", "content": "Tell me a story about a brave fox."}]
    rendered = loaded.apply_chat_template(request, tokenize=False, add_generation_prompt=True)
    if rendered != render(request) + ASSISTANT:
        raise SystemExit(f"the chat template writes {rendered!r}, but training saw another format")
    for prompt in (BEGIN + "Once upon a time", rendered):
        ids = loaded(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=300)
        print(f"\n--- {prompt}\n{loaded.decode(made[0, ids.shape[1] :])}")


def write_heldout(path: Path) -> None:
    """Stories and conversations of seeds that training never used, one a block, "====" between."""
    blocks: list[str] = []
    for i in range(8):
        rng = Random(2 * HELDOUT_SEED + i)
        blocks.append(plain_story(rng) if i % 2 == 0 else render(chat(rng)))
    path.write_text("\n====\n".join(blocks) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30, help="how long to train (default 30)")
    parser.add_argument("--steps", type=int, help="train so many steps instead")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each (default 2)")
    parser.add_argument("--seed", type=int, default=1, help="of the weights at the start")
    parser.add_argument("--start", type=Path, help="go on from this folder's weights and tokenizer")
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first training document (default 0)"
    )
    parser.add_argument("--peak", type=float, default=1.0, help="factor on the learning rates (default 1)")
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="folder to write")
    parser.add_argument("--heldout", action="store_true", help="only write the held-out text")
    return parser.parse_args()


def main() -> None:
    """Starts the workers, or writes the held-out text."""
    given = arguments()
    if given.heldout:
        write_heldout(HELDOUT_FILE)
        return
    with tempfile.TemporaryDirectory() as meeting:
        point = f"file://{meeting}/point"
        with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn")) as pool:
            for done in [pool.submit(work, rank, given, point) for rank in range(given.workers)]:
                done.result()


def work(rank: int, given: argparse.Namespace, meeting_point: str) -> None:
    """One worker, from an untrained model to (the first one) a written folder."""
    dist.init_process_group("gloo", meeting_point, rank=rank, world_size=given.workers)
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    if given.start is None:
        tokenizer = train_tokenizer()
        model = build_model(tokenizer)
    else:
        tokenizer = Tokenizer.from_file(str(given.start / "tokenizer.json"))
        model = LlamaForCausalLM.from_pretrained(given.start, dtype=torch.float32)
    if rank == 0:
        print(f"{model.num_parameters():,} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    train(model, tokenizer, Budget(given.minutes, given.steps), first=given.first, peak=given.peak)
    if rank == 0:
        finish(model, tokenizer, given.out)
    dist.destroy_process_group()


def finish(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Measures, writes and checks the trained model."""
    print(f"held-out loss {heldout_loss(model, tokenizer):.4f} nats a token")
    export(model, tokenizer, folder)
    check(folder)


if __name__ == "__main__":
    main()
