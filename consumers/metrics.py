"""Metrics of workers, by model and engine, and of archivers, in the default registry of prometheus-client."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_LABELS = ["model", "engine"]
_WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

QUEUE_WAIT = Histogram(
    "openchat_engine_queue_wait_seconds", "From acceptance until a worker took the request.", _LABELS, buckets=_WAITS
)
FIRST_TOKEN = Histogram(
    "openchat_engine_time_to_first_token_seconds",
    "From taking a request to the first token of the engine.",
    _LABELS,
    buckets=_WAITS,
)
INTER_TOKEN = Histogram(
    "openchat_engine_inter_token_seconds",
    "Between two tokens of one response.",
    _LABELS,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 5),
)
TOKENS = Counter("openchat_engine_tokens_total", "Tokens generated.", _LABELS)
TOKENS_PER_S = Gauge("openchat_engine_tokens_per_second", "Tokens generated per second.", _LABELS)
RUNNING = Gauge("openchat_engine_running", "Slots in use.", _LABELS)
SLOTS = Gauge("openchat_engine_slots", "Responses that can be generated at once.", _LABELS)
LOADING = Gauge("openchat_engine_loading", "1 while the engine starts.", _LABELS)
START_S = Gauge("openchat_engine_start_seconds", "How long the engine took to start.", _LABELS)

ARCHIVE_LAG = Gauge("openchat_archive_lag", "Finished responses that are not settled; every archiver says the same.")
ARCHIVED = Counter("openchat_archived_total", "Responses that this archiver found or put in the archive.")
ARCHIVE_FAILURES = Counter("openchat_archive_failures_total", "Times that broker or archive were away.")


class EngineMetrics:
    """The metrics of one engine, their labels bound once: what is called for each token must cost little."""

    def __init__(self, model: str, engine: str) -> None:
        labels = (model, engine)
        self.queue_waited = QUEUE_WAIT.labels(*labels).observe
        """Seconds from acceptance to take."""
        self.first_token = FIRST_TOKEN.labels(*labels).observe
        """Seconds from take to the first token."""
        self.between_tokens = INTER_TOKEN.labels(*labels).observe
        """Seconds between two tokens of a response."""
        self.tokens = TOKENS.labels(*labels).inc
        """Tokens generated now."""
        self._tokens_per_s = TOKENS_PER_S.labels(*labels)
        self._running = RUNNING.labels(*labels)
        self._slots = SLOTS.labels(*labels)
        self._loading = LOADING.labels(*labels)
        self._start_s = START_S.labels(*labels)

    def begins_loading(self) -> None:
        self._loading.set(1)

    def loaded(self, seconds: float, slots: int) -> None:
        """The engine has started: how long it took, and how much it does at once."""
        self._loading.set(0)
        self._start_s.set(seconds)
        self._slots.set(slots)

    def pace(self, *, running: int, tokens_per_s: float) -> None:
        """As it is now."""
        self._running.set(running)
        self._tokens_per_s.set(tokens_per_s)
