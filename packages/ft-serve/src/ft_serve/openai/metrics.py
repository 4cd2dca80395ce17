"""What Prometheus reads: vLLM's names with our own prefix, so that its dashboards fit."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ft_core.engine import GenerationEvent

SECONDS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)

REJECTIONS = ("draining", "loading", "recovering", "queue_full", "queue_tokens")


class Metrics:
    """All measurements of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("model_name",)

        def counter(name: str, text: str, names: tuple[str, ...] = labels) -> Counter:
            return Counter(f"ft:{name}", text, names, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"ft:{name}", text, labels, buckets=buckets, registry=self.registry)

        self.prompt_tokens = counter("prompt_tokens", "Tokens of prompts.")
        self.generated_tokens = counter("generation_tokens", "Tokens generated.")
        self.cached_tokens = counter("prefix_cache_hits", "Tokens of prompts that were reused.")
        self.finished = counter(
            "request_success", "Answers that ended.", ("model_name", "finished_reason")
        )
        self.rejected = counter("admission_rejections", "Requests refused for now.", ("reason",))
        self.failed = counter("request_failures", "Answers that failed.", ("model_name",))
        self.first_token = histogram(
            "time_to_first_token_seconds", "From arrival to the first token.", SECONDS
        )
        self.between_tokens = histogram(
            "inter_token_latency_seconds", "Between two events of an answer.", SECONDS
        )
        self.whole = histogram(
            "e2e_request_latency_seconds", "From arrival to the end of the answer.", SECONDS
        )
        self.per_token = histogram(
            "request_time_per_output_token_seconds", "Mean time of tokens after the first.", SECONDS
        )
        self.prompt_lengths = histogram("request_prompt_tokens", "Tokens of a prompt.", TOKENS)
        self.answer_lengths = histogram("request_generation_tokens", "Tokens of an answer.", TOKENS)
        self.http = counter(
            "http_requests", "Requests by route and status.", ("route", "method", "status")
        )
        self.tokens_so_far = (0, 0)
        for reason in REJECTIONS:
            self.rejected.labels(reason)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read whenever somebody asks."""
        Gauge(f"ft:{name}", text, registry=self.registry).set_function(value)

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def start(self, model: str) -> Measured:
        """Begin to measure one answer."""
        return Measured(self, model)


class Measured:
    """The measurements of one answer while it is generated."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model
        self._began = time.perf_counter()
        self._first: float | None = None
        self._last = self._began
        self._between = metrics.between_tokens.labels(model)
        self._generated = metrics.generated_tokens.labels(model)

    def note(self, event: GenerationEvent) -> None:
        """Count one event."""
        now = time.perf_counter()
        prompt, generated = self._metrics.tokens_so_far
        if self._first is None:
            self._first = now
            self._metrics.first_token.labels(self._model).observe(now - self._began)
            self._metrics.prompt_tokens.labels(self._model).inc(event.prompt_tokens)
            self._metrics.cached_tokens.labels(self._model).inc(event.cached_tokens)
            prompt += event.prompt_tokens
        else:
            self._between.observe(now - self._last)
        self._last = now
        self._generated.inc(len(event.token_ids))
        self._metrics.tokens_so_far = (prompt, generated + len(event.token_ids))
        if event.finish_reason is not None:
            self._end(event)

    def _end(self, event: GenerationEvent) -> None:
        metrics, model = self._metrics, self._model
        metrics.finished.labels(model, event.finish_reason).inc()
        metrics.whole.labels(model).observe(self._last - self._began)
        metrics.prompt_lengths.labels(model).observe(event.prompt_tokens)
        metrics.answer_lengths.labels(model).observe(event.generated_tokens)
        if self._first is not None and event.generated_tokens > 1:
            mean = (self._last - self._first) / (event.generated_tokens - 1)
            metrics.per_token.labels(model).observe(mean)

    def left(self) -> None:
        """Count an answer whose reader left."""
        self._metrics.finished.labels(self._model, "aborted").inc()

    def fail(self) -> None:
        """Count a failure."""
        self._metrics.failed.labels(self._model).inc()
