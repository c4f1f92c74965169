"""What a service has done, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MENTIONS = (1, 4, 16, 64, 256, 1024)


class Metrics:
    """Counters of one service."""

    def __init__(self, waiting: Callable[[], int]):
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter("mel_requests", "Answered requests.", ["path", "status"], registry=self._registry)
        self._seconds = Histogram(
            "mel_request_seconds", "From the first to the last byte of a request.", ["path"], buckets=SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._mentions = Counter("mel_mentions", "Linked mentions.", registry=self._registry)
        self._batches = Histogram(
            "mel_batch_mentions", "Mentions that were linked at once.", buckets=MENTIONS, registry=self._registry
        )
        gauge = Gauge("mel_waiting_requests", "Requests that wait for their turn.", registry=self._registry)
        gauge.set_function(waiting)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts a request that was answered."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, mentions: int) -> None:
        """Counts mentions that were linked together."""
        self._mentions.inc(mentions)
        self._batches.observe(mentions)

    def text(self) -> tuple[bytes, str]:
        """All of it, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
