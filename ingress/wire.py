"""The two APIs as the routes see them: how a body is read, a stream written, an answer made."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from starlette.responses import Response

from formats.chat import chat_completion, encode_chat
from formats.responses import encode_responses, response_object
from formats.sse import Encode
from formats.transcript import transcript_of
from ingress.errors import GenerationFailed, json_response
from ingress.tails import Tail
from responses.resolve import resolve_chat, resolve_responses
from schemas.api import ChatBody, ResponsesBody
from schemas.errors import InvalidRequest
from schemas.events import Cancelled, Failed
from schemas.ids import ResponseId, chat_id
from schemas.requests import Format, GenerationRequest

Headers = dict[str, str]


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """One API: requests in, streams and answers out."""

    format: Format
    body: type[ChatBody] | type[ResponsesBody]
    resolve: Callable[..., GenerationRequest]
    """Body and keyword arguments of `responses.resolve` → request."""
    encode: Encode
    answer: Callable[[Tail, Headers], Response]
    """The whole response as one object."""
    path: str
    shown_id: Callable[[ResponseId], str]

    def location(self, response_id: ResponseId) -> Headers:
        """Where a stream that was cut goes on."""
        return {"location": f"{self.path}/{self.shown_id(response_id)}?stream=true"}


def _chat_answer(tail: Tail, headers: Headers) -> Response:
    """Raises InvalidRequest for a response that is not finished, GenerationFailed."""
    transcript = transcript_of(tail.entries)
    match transcript.terminal:
        case None:
            raise InvalidRequest("This response is not finished; read it with stream=true.", param="stream")
        case Failed(error=error):
            raise GenerationFailed(error.code, error.message)
        case Cancelled():
            raise GenerationFailed("cancelled", "The response was cancelled.")
    return json_response(chat_completion(transcript), headers=headers)


def _responses_answer(tail: Tail, headers: Headers) -> Response:
    """As it stands; a failed one says so itself."""
    return json_response(response_object(transcript_of(tail.entries)), headers=headers)


CHAT = Wire(
    format="chat",
    body=ChatBody,
    resolve=resolve_chat,
    encode=encode_chat,
    answer=_chat_answer,
    path="/v1/chat/completions",
    shown_id=chat_id,
)
RESPONSES = Wire(
    format="responses",
    body=ResponsesBody,
    resolve=resolve_responses,
    encode=encode_responses,
    answer=_responses_answer,
    path="/v1/responses",
    shown_id=str,
)
