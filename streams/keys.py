"""Every key name. What one script touches shares a hash tag; names from outside are percent-encoded.

`p` is the partition of a response: 0 on one node and with Sentinel, 0 to 15 on a Cluster.

| key | type | holds |
|---|---|---|
| `oc:{p}:response:<id>` | stream | the log of one response |
| `oc:{p}:live` | stream | the bus of a partition |
| `oc:{p}:mark:<consumer>` | string | number of a worker's last flush |
| `oc:{p}:open` | sorted set | accepted responses that are not archived; score: unix ms |
| `oc:{p}:unqueued` | sorted set | accepted responses whose request entry is not known to be written; score: unix ms |
| `oc:requests:{<model>:<lane>}` | stream | requests, consumer group `inference` |
| `oc:{p}:viewed:<id>` | sorted set | gateways that show this response; score: unix ms until which |
| `oc:conversation:<id>` | list | turns of a conversation that are not archived, and the last one |
| `oc:chat:<hash>` | string | the newest response of a chat, by tenant and the client's own id for it |
| `oc:control` | stream | what every worker should know at once |
| `oc:finished` | stream | finished responses, group `archiver` |
| `oc:dead` | stream | dead letters: entries that nobody could serve or archive |
| `oc:lease:<consumer>` | string | alive while it exists |
| `oc:workers` | hash | consumer → WorkerInfo, also of the dead for a while |
| `oc:keys` | hash | SHA-256 of an API key → ProjectedKey, and the version of the whole: a projection of SQL |
"""

from __future__ import annotations

import hashlib
import json
import re
from urllib.parse import quote, unquote

from schemas.ids import ConversationId, ResponseId
from schemas.requests import LANES, Lane

FINISHED = "oc:finished"
CONTROL = "oc:control"
DEAD = "oc:dead"
WORKERS = "oc:workers"
KEYS = "oc:keys"
INFERENCE_GROUP = "inference"
ARCHIVER_GROUP = "archiver"
RELEASED_CONSUMER = "released"
"""Owns entries that a draining worker handed back; never has a lease."""


def partition_of(response_id: ResponseId, partitions: int = 1) -> int:
    """The partition of a response: by its random digits."""
    return int(response_id[-4:], 16) % partitions


def log_key(response_id: ResponseId, partitions: int = 1) -> str:
    return f"oc:{{{partition_of(response_id, partitions)}}}:response:{response_id}"


def bus_key(partition: int = 0) -> str:
    return f"oc:{{{partition}}}:live"


def mark_key(consumer: str, partition: int = 0) -> str:
    return f"oc:{{{partition}}}:mark:{quote(consumer, safe='')}"


def open_key(partition: int = 0) -> str:
    return f"oc:{{{partition}}}:open"


def unqueued_key(partition: int = 0) -> str:
    return f"oc:{{{partition}}}:unqueued"


def viewed_key(response_id: ResponseId, partitions: int = 1) -> str:
    return f"oc:{{{partition_of(response_id, partitions)}}}:viewed:{response_id}"


def conversation_key(conversation: ConversationId) -> str:
    return f"oc:conversation:{conversation}"


def chat_key(tenant: str, chat: str) -> str:
    """Both are names from outside: hashed, a key is short and tells nobody what they were."""
    return f"oc:chat:{hashlib.sha256(json.dumps([tenant, chat]).encode()).hexdigest()}"


def requests_key(model: str, lane: Lane) -> str:
    return f"oc:requests:{{{quote(model, safe='')}:{lane}}}"


def parse_requests_key(key: str) -> tuple[str, Lane] | None:
    """Model and lane of a request stream; None for any other key."""
    for lane in LANES:
        match = re.fullmatch(rf"oc:requests:\{{([^{{}}:]+):{lane}\}}", key)
        if match:
            return unquote(match[1]), lane
    return None


def lease_key(consumer: str) -> str:
    return f"oc:lease:{quote(consumer, safe='')}"
