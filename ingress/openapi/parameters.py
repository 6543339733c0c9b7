"""Variables of paths, parts of queries and headers that several routes have."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ingress.openapi.operation import Parameter
from schemas.answers.responses import ResponseName
from schemas.requests import OnDisconnect, Takeover
from schemas.ui_messages import MAX_CHAT_ID

VARIABLES = {
    "response_id": Parameter(
        name="response_id",
        type=Annotated[str, Meta(pattern=r"\A(resp_|chatcmpl-|cmpl-|embd-)[0-9a-f]{32}\Z")],
        description="The id of a response. One response has the same digits in every API.",
    ),
    "chat_id": Parameter(
        name="chat_id",
        type=Annotated[str, Meta(min_length=1, max_length=MAX_CHAT_ID)],
        description="The id of a chat, which its client has made up.",
    ),
    "conversation_id": Parameter(
        name="conversation_id",
        type=Annotated[str, Meta(pattern=r"\Aconv_[0-9a-f]{32}\Z")],
        description="The id of a conversation.",
    ),
    "item_id": Parameter(
        name="item_id",
        type=Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_]{1,200}\Z")],
        description="The id of an item of the conversation.",
    ),
    "model": Parameter(
        name="model",
        type=Annotated[str, Meta(min_length=1, max_length=512)],
        description="A model, by name, alias or adapter.",
    ),
    "tenant": Parameter(
        name="tenant",
        type=Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]{1,64}\Z")],
        description="The name of a tenant.",
    ),
    "key_id": Parameter(
        name="key_id",
        type=Annotated[str, Meta(pattern=r"\A(key_)?[0-9a-f]{32}\Z")],
        description="The id of a key.",
    ),
}
"""By their names in paths."""

LIMIT = Parameter(
    name="limit", type=Annotated[int, Meta(ge=1, le=100)], description="At most so many of the list.", default=20
)
ORDER = Parameter(
    name="order", type=Literal["asc", "desc"], description="The oldest or the newest first.", default="desc"
)
AFTER = Parameter(name="after", type=str, description="The last id of the page before: those behind it.")

ON_DISCONNECT = Parameter(
    name="x-openchat-on-disconnect",
    type=OnDisconnect,
    description="What becomes of a response in the foreground when its last client has left.",
    default="cancel",
)
TAKEOVER = Parameter(
    name="x-openchat-takeover",
    type=Takeover,
    description="What another worker does with it when its worker dies; what is not given, the model says.",
)
LAST_EVENT_ID = Parameter(
    name="last-event-id",
    type=Annotated[str, Meta(pattern=r"\A(0|[1-9][0-9]{0,17})-[1-9][0-9]{0,17}\Z")],
    description="The `id:` of the last event that was seen: the stream goes on behind it. Needs `stream=true`.",
)
STREAM = Parameter(name="stream", type=bool, description="As server-sent events.", default=False)
STARTING_AFTER = Parameter(
    name="starting_after",
    type=Annotated[int, Meta(ge=0, le=999_999_999_999_999)],
    description="The `sequence_number` of the last event that was seen: the stream goes on behind it. "
    "Needs `stream=true`.",
)

OLDEST_FIRST = msgspec.structs.replace(ORDER, default="asc")

REQUEST_ID = Parameter(
    name="x-request-id",
    type=Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.:-]{1,128}\Z")],
    description="Names this request in the log lines. The one that the client has sent, where it has this form.",
    is_required=True,
)
PROCESSING_MS = Parameter(
    name="openai-processing-ms",
    type=Annotated[int, Meta(ge=0)],
    description="Milliseconds until the answer began.",
    is_required=True,
)
OF_A_RESPONSE = (
    Parameter(
        name="x-openchat-response-id",
        type=ResponseName,
        description="The response in the answer, by the id that the Responses API knows it by.",
        is_required=True,
    ),
    Parameter(name="x-openchat-model", type=str, description="Its model.", is_required=True),
    Parameter(name="x-openchat-engine", type=str, description="Its engine, where one is known."),
    Parameter(
        name="x-openchat-attempts",
        type=Annotated[int, Meta(ge=0)],
        description="How many workers have begun it by now.",
        is_required=True,
    ),
)
"""What every answer with a response in it says."""
LOCATION = Parameter(
    name="location",
    type=str,
    description="Where the answer is, and where its stream goes on after a cut.",
    is_required=True,
)
RETRY_AFTER = Parameter(
    name="retry-after", type=Annotated[int, Meta(ge=0)], description="Seconds to wait before the same is asked again."
)
WWW_AUTHENTICATE = Parameter(
    name="www-authenticate", type=str, description="Which kind of key is needed.", is_required=True
)
WARNINGS = Parameter(
    name="x-openchat-warnings",
    type=str,
    description="The parameters that were left out, where `OPENCHAT_UNSUPPORTED_PARAMETERS` is `warn`.",
)
SHOULD_RETRY = Parameter(
    name="x-should-retry",
    type=Literal["false"],
    description="Official clients do not ask again, although the status would make them.",
)
