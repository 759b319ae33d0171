"""Numbers for Prometheus: what was asked, what it cost, how the engine goes.

A label is a declared path, a known method, a status or the model's own name:
nothing that a client makes up becomes a time series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from influence.generation.events import Finished
from influence.generation.facts import GeneratorFacts

_METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE")
# From a small model's single token to a long answer of a large one, in seconds.
_REQUEST_BUCKETS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_COUNT_BUCKETS = (1, 8, 32, 128, 512, 2048, 8192, 32768, 131072)


class Metrics:
    """The server's own registry; nothing global, so that two servers in a process stay apart."""

    def __init__(self, facts: Callable[[], GeneratorFacts], model: str) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._model = model
        self._requests = Counter(
            "influence_requests", "Requests answered.", ("path", "method", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "influence_request_seconds",
            "From a request's headers to the end of its answer.",
            ("path",),
            buckets=_REQUEST_BUCKETS,
            registry=self._registry,
        )
        self._finished = Counter(
            "influence_completions",
            "Completions by how they ended.",
            ("model", "reason"),
            registry=self._registry,
        )
        self._queue = self._histogram("queue_seconds", "From submission to a place.", _REQUEST_BUCKETS)
        self._first = self._histogram(
            "first_token_seconds", "From submission to the first token.", _REQUEST_BUCKETS
        )
        self._per_token = self._histogram(
            "token_seconds", "Mean time of a token after the first.", _TOKEN_BUCKETS
        )
        self._prompt = self._histogram("prompt_tokens", "Tokens of a prompt.", _COUNT_BUCKETS)
        self._completion = self._histogram("completion_tokens", "Tokens of a completion.", _COUNT_BUCKETS)
        self._registry.register(_EngineCollector(facts))

    def request(self, path: str | None, method: str, status: int | None, seconds: float) -> None:
        """Count an answer; `path` as it was declared, None for one that is not known."""
        known = path or "other"
        self._requests.labels(known, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(known).observe(seconds)

    def completion(self, end: Finished) -> None:
        """Count what a completion cost. For any thread."""
        statistics = end.statistics
        self._finished.labels(self._model, end.finish_reason).inc()
        self._queue.observe(statistics.queue_s)
        self._prompt.observe(statistics.prompt_tokens)
        self._completion.observe(statistics.completion_tokens)
        if statistics.first_token_s is not None:
            self._first.observe(statistics.first_token_s)
        if statistics.decode_tokens_per_s:
            self._per_token.observe(1 / statistics.decode_tokens_per_s)

    def text(self) -> bytes:
        """All of it in Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(f"influence_{name}", what, ("model",), buckets=buckets, registry=self._registry)
        child: Histogram = histogram.labels(self._model)
        return child


class _EngineCollector:
    """The generator's facts, asked for when somebody scrapes."""

    def __init__(self, facts: Callable[[], GeneratorFacts]) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        facts = self._facts()
        loop = facts.loop
        gauges = {
            "requests_running": ("Requests that have a place.", loop.n_running),
            "requests_waiting": ("Requests that wait for a place.", loop.n_waiting),
            "requests_unfinished": ("Requests that were submitted and have not ended.", facts.n_unfinished),
            "kv_blocks": ("Blocks of the KV cache.", loop.n_kv_blocks),
            "kv_blocks_free": ("Blocks that nothing holds.", loop.n_free_kv_blocks),
            "kv_blocks_reserved": (
                "Blocks that running requests can come to hold.",
                loop.n_reserved_kv_blocks,
            ),
            "kept_prefixes": ("Prompts kept for others that begin alike.", loop.n_kept_prefixes),
            "stalled_seconds": ("Time without a step though there is work.", facts.stalled_s),
        }
        counters = {
            "engine_steps": ("Batches run by the engine.", loop.n_steps),
            "prompt_tokens_computed": ("Prompt tokens computed.", loop.n_prompt_tokens),
            "prompt_tokens_cached": ("Prompt tokens taken from earlier requests.", loop.n_cached_tokens),
            "generated_tokens": ("Tokens generated.", loop.n_generated_tokens),
            "drafted_tokens": ("Tokens guessed and run on trial.", loop.n_drafted_tokens),
            "accepted_tokens": ("Guessed tokens that came true.", loop.n_accepted_tokens),
        }
        for name, (what, value) in gauges.items():
            yield GaugeMetricFamily(f"influence_{name}", what, value)
        for name, (what, value) in counters.items():
            yield CounterMetricFamily(f"influence_{name}", what, value)
