"""Metrics of a gateway, in the default registry of prometheus-client."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("openchat_http_requests_total", "HTTP requests by route and status.", ["route", "status"])
ACCEPTED = Counter("openchat_responses_accepted_total", "Responses accepted.", ["model", "format"])
VIEWERS = Gauge("openchat_viewers", "Clients that read a stream now.")
DISCONNECTED = Counter("openchat_disconnected_total", "Responses ended because their last viewer had left.")
STALLED = Counter("openchat_readers_stalled_total", "Connections cut because their client took nothing for too long.")
FIRST_TEXT = Histogram(
    "openchat_time_to_first_text_seconds",
    "From acceptance to the first text on its way to the client.",
    ["model"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
TAIL_REPAIRS = Counter("openchat_tail_repairs_total", "Times that a log was read because the bus was not enough.")
PUT_BACK = Counter("openchat_entries_put_back_total", "Log entries that a failover took and this gateway put back.")
TAILS_FAILED = Counter("openchat_tails_failed_total", "Streams ended with an error of the tail.", ["code"])
