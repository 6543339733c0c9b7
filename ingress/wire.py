"""The APIs as the routes see them: how a body is read, a stream written, an answer made."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.responses import Response

from formats.chat import chat_completion, encode_chat
from formats.completions import completion, encode_completions
from formats.embeddings import embedding_list
from formats.responses import encode_responses, response_object
from formats.sse import Encode
from formats.stored_chat import stored_chat_completion
from formats.transcript import Transcript, transcript_of
from ingress.errors import GenerationFailed, json_response
from ingress.tails import Tail
from responses.resolve import resolve_chat, resolve_completions, resolve_embeddings, resolve_responses
from schemas.bodies import Body, ChatBody, CompletionsBody, EmbeddingsBody, ResponsesBody
from schemas.errors import InvalidRequest, SettingsError
from schemas.events import Cancelled, Failed, LogEvent
from schemas.ids import ResponseId, chat_id, completion_id, embedding_id
from schemas.requests import Format, GenerationRequest

Headers = dict[str, str]


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """One API: requests in, streams and answers out."""

    format: Format
    body: type[Body]
    """One with a field `stream`, if it has a stream."""
    resolve: Callable[..., GenerationRequest]
    """Body and keyword arguments of `responses.resolve` → request."""
    encode: Encode | None
    """None: it has no stream."""
    answer: Callable[[Tail, Headers], Response]
    """The whole response as one object."""
    retrieved: Callable[[Tail, Headers], Response] | None = None
    """The same when it is asked for later, where that shows more."""
    path: str
    shown_id: Callable[[ResponseId], str]

    def location(self, response_id: ResponseId) -> Headers:
        """Where a stream that was cut goes on, or where the answer is."""
        path = f"{self.path}/{self.shown_id(response_id)}"
        return {"location": f"{path}?stream=true" if self.encode is not None else path}

    def show(self, tail: Tail, headers: Headers) -> Response:
        """The whole response when it is asked for later; raises as `answer` does."""
        return (self.retrieved or self.answer)(tail, headers)

    def check_shows(self, tail: Tail) -> None:
        """Vectors are shown by embeddings alone, and nothing else by them. Raises InvalidRequest."""
        is_embedding = tail.accepted.request.embed is not None
        if is_embedding != (self.format == EMBEDDINGS.format):
            where = EMBEDDINGS.path if is_embedding else RESPONSES.path
            raise InvalidRequest(f"This response is shown at {where}, not here.")


def finished_answer(make: Callable[[Transcript, Headers], Response]) -> Callable[[Tail, Headers], Response]:
    """For formats that show finished responses only."""

    def answer(tail: Tail, headers: Headers) -> Response:
        """Raises InvalidRequest for a response that is not finished, GenerationFailed."""
        transcript = transcript_of(tail.entries)
        if transcript.terminal is None:
            raise InvalidRequest("This response is not finished; read it with stream=true.", param="stream")
        check_not_failed(transcript.terminal)
        return make(transcript, headers)

    return answer


def check_not_failed(last: LogEvent) -> None:
    """Raises GenerationFailed where this is the end of a response that has no answer."""
    match last:
        case Failed(error=error):
            raise GenerationFailed(error.code, error.message)
        case Cancelled():
            raise GenerationFailed("cancelled", "The response was cancelled.")


def _json(make: Callable[[Transcript], Any]) -> Callable[[Tail, Headers], Response]:
    return finished_answer(lambda transcript, headers: json_response(make(transcript), headers=headers))


def _responses_answer(tail: Tail, headers: Headers) -> Response:
    """As it stands; a failed one says so itself."""
    return json_response(response_object(transcript_of(tail.entries)), headers=headers)


CHAT = Wire(
    format="chat",
    body=ChatBody,
    resolve=resolve_chat,
    encode=encode_chat,
    answer=_json(chat_completion),
    retrieved=_json(stored_chat_completion),
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
    answer=_json(completion),
    path="/v1/completions",
    shown_id=completion_id,
)
EMBEDDINGS = Wire(
    format="embeddings",
    body=EmbeddingsBody,
    resolve=resolve_embeddings,
    encode=None,
    answer=_json(embedding_list),
    path="/v1/embeddings",
    shown_id=embedding_id,
)
BUILT_IN = (CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS)


def load_wires() -> list[Wire]:
    """The built-in ones, and those that installed packages bring by the entry point `openchat.wires`.

    Raises SettingsError for one that is no Wire, or that takes the path or name of another.
    """
    wires = list(BUILT_IN)
    for point in importlib.metadata.entry_points(group="openchat.wires"):
        try:
            wire = point.load()
        except (ImportError, AttributeError) as exc:
            raise SettingsError(f"the wire format {point.name!r} can not be loaded: {exc}") from exc
        if not isinstance(wire, Wire):
            raise SettingsError(f"the entry point {point.name!r} of openchat.wires is no ingress.wire.Wire")
        if any(wire.path == other.path or wire.format == other.format for other in wires):
            raise SettingsError(f"the wire format {point.name!r} takes the path or the name of another")
        wires.append(wire)
    return wires
