"""The server's counters, for Prometheus at `/metrics`."""

from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

KNOWN_PATHS = frozenset(
    {"/", "/health", "/metrics", "/openapi.json", "/v1/models", "/v1/images/generations", "/v1/images/edits"}
)
"""Paths with their own label; all others have the label `other`, so that clients cannot create labels."""
_SECONDS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128)


@dataclass
class Counts:
    """Counters of one server, in its own registry."""

    waiting: Callable[[], int]
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        """Register the metrics."""
        registry = self.registry
        self._answers = Counter("corgi_answers_total", "HTTP answers", ["path", "status"], registry=registry)
        self._pictures = Counter("corgi_pictures_total", "Pictures painted", registry=registry)
        self._seconds = Histogram(
            "corgi_request_seconds",
            "Seconds from a request's arrival in the queue to its pictures",
            buckets=_SECONDS,
            registry=registry,
        )
        Gauge("corgi_waiting", "Requests that wait in the queue", registry=registry).set_function(
            self.waiting
        )

    def answered(self, path: str, status: int) -> None:
        """Count an HTTP answer."""
        self._answers.labels(path if path in KNOWN_PATHS else "other", str(status)).inc()

    def painted(self, pictures: int, seconds: float) -> None:
        """Count the pictures of a request and the seconds it took."""
        self._pictures.inc(pictures)
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        """Return all counters in Prometheus' text format."""
        return generate_latest(self.registry)
