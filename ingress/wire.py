"""The APIs as the routes see them: how a body is read, a stream written, an answer made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from starlette.responses import Response

from formats.chat import chat_completion, encode_chat
from formats.completions import completion, encode_completions
from formats.embeddings import embedding_list
from formats.responses import encode_responses, response_object
from formats.sse import Encode
from formats.transcript import Transcript, transcript_of
from ingress.errors import GenerationFailed, json_response
from ingress.tails import Tail
from responses.resolve import resolve_chat, resolve_completions, resolve_embeddings, resolve_responses
from schemas.bodies import ChatBody, CompletionsBody, EmbeddingsBody, ResponsesBody
from schemas.errors import InvalidRequest
from schemas.events import Cancelled, Failed
from schemas.ids import ResponseId, chat_id, completion_id, embedding_id
from schemas.requests import Format, GenerationRequest

Headers = dict[str, str]


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """One API: requests in, streams and answers out."""

    format: Format
    body: type[ChatBody] | type[ResponsesBody] | type[CompletionsBody] | type[EmbeddingsBody]
    resolve: Callable[..., GenerationRequest]
    """Body and keyword arguments of `responses.resolve` → request."""
    encode: Encode | None
    """None: it has no stream."""
    answer: Callable[[Tail, Headers], Response]
    """The whole response as one object."""
    path: str
    shown_id: Callable[[ResponseId], str]

    def location(self, response_id: ResponseId) -> Headers:
        """Where a stream that was cut goes on, or where the answer is."""
        path = f"{self.path}/{self.shown_id(response_id)}"
        return {"location": f"{path}?stream=true" if self.encode is not None else path}

    def check_shows(self, tail: Tail) -> None:
        """Vectors are shown by embeddings alone, and nothing else by them. Raises InvalidRequest."""
        if (tail.accepted.format == "embeddings") != (self.format == "embeddings"):
            raise InvalidRequest(f"This response is shown at {WIRES[tail.accepted.format].path}, not here.")


def _answer(make: Callable[[Transcript], Any]) -> Callable[[Tail, Headers], Response]:
    """For formats that show finished responses only."""

    def answer(tail: Tail, headers: Headers) -> Response:
        """Raises InvalidRequest for a response that is not finished, GenerationFailed."""
        transcript = transcript_of(tail.entries)
        match transcript.terminal:
            case None:
                raise InvalidRequest("This response is not finished; read it with stream=true.", param="stream")
            case Failed(error=error):
                raise GenerationFailed(error.code, error.message)
            case Cancelled():
                raise GenerationFailed("cancelled", "The response was cancelled.")
        return json_response(make(transcript), headers=headers)

    return answer


def _responses_answer(tail: Tail, headers: Headers) -> Response:
    """As it stands; a failed one says so itself."""
    return json_response(response_object(transcript_of(tail.entries)), headers=headers)


CHAT = Wire(
    format="chat",
    body=ChatBody,
    resolve=resolve_chat,
    encode=encode_chat,
    answer=_answer(chat_completion),
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
COMPLETIONS = Wire(
    format="completions",
    body=CompletionsBody,
    resolve=resolve_completions,
    encode=encode_completions,
    answer=_answer(completion),
    path="/v1/completions",
    shown_id=completion_id,
)
EMBEDDINGS = Wire(
    format="embeddings",
    body=EmbeddingsBody,
    resolve=resolve_embeddings,
    encode=None,
    answer=_answer(embedding_list),
    path="/v1/embeddings",
    shown_id=embedding_id,
)
WIRES: dict[Format, Wire] = {wire.format: wire for wire in (CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS)}
