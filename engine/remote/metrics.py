"""Metrics of the engine `openai`, in the default registry of prometheus-client."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

UPSTREAM_REQUESTS = Counter(
    "openchat_upstream_requests_total",
    "Tries at a remote API: served, refused (the request's fault), failed (before the first piece: another may "
    "serve it), broke_off (after it), left (ended by us).",
    ["upstream", "outcome"],
)
UPSTREAM_RESTING = Gauge("openchat_upstream_resting", "1 while a remote API that failed is left alone.", ["upstream"])
