"""What came before a request: the turns that it goes on from, as messages in front of its own.

A log keeps only the input that is new in it, and says by `previous_response_id` or `conversation` where the rest is.
The request entry for the worker has everything; whoever must make one again finds the same here.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from formats.items import ItemObject, turn_items
from formats.transcript import Transcript, transcript_of
from responses.conversations import ConversationReader
from responses.read import ResponseReader
from responses.resolve import messages_of
from schemas.bodies import InputItem
from schemas.conversations import StoredItem
from schemas.errors import ConversationLocked, InvalidRequest, ResponseNotFound
from schemas.events import Entry, Failed
from schemas.ids import ConversationId, ResponseId
from schemas.requests import Branch, GenerationRequest, ImageContent, Message
from streams.turns import ConversationTurns

MAX_TURNS = 1_000
"""Longest chain of responses."""
MAX_ITEMS = 10_000
"""Most items of a conversation that may stand before a request."""
MAX_CHARACTERS = 32 << 20
"""Most that may stand before a request, images included: all of it goes through the broker."""
_PREVIOUS = "previous_response_id"

_decode: msgspec.json.Decoder[InputItem] = msgspec.json.Decoder(InputItem)


class History(msgspec.Struct, frozen=True):
    """What stands before a request."""

    messages: list[Message] = []
    seen: ResponseId | None = None
    """The last turn of the conversation when it was read."""


class Histories:
    """Finds what came before."""

    def __init__(self, reader: ResponseReader, conversations: ConversationReader, turns: ConversationTurns) -> None:
        self._reader = reader
        self._conversations = conversations
        self._turns = turns

    async def before(self, tenant: str, request: GenerationRequest, response_id: ResponseId | None = None) -> History:
        """What came before a request, or before the response to it that is already there.

        Raises ConversationNotFound, ResponseNotFound, ConversationLocked, InvalidRequest, BrokerError, ArchiveError.
        """
        if request.conversation:
            return await self._before_turn(tenant, ConversationId(request.conversation), response_id)
        if request.branch is not None:
            return await self._before_branch(tenant, request.branch)
        if request.previous_response_id:
            return History(_checked(await self._chain(tenant, ResponseId(request.previous_response_id))))
        return History()

    async def join(self, request: GenerationRequest, response_id: ResponseId, history: History) -> None:
        """Just before it is accepted: a turn of its conversation, behind the last one whose history it has.

        Raises ConversationLocked where another was faster, BrokerError.
        """
        conversation = ConversationId(request.conversation)
        if conversation and not await self._turns.join(conversation, response_id, seen=history.seen):
            raise ConversationLocked

    async def _chain(self, tenant: str, response_id: ResponseId) -> list[Message]:
        """Of a response, its own turn included; the logs are read from the last turn to the first."""
        turns: list[list[InputItem]] = []
        base: list[Message] = []
        ahead: dict[ResponseId, list[Entry]] = {}
        while response_id:
            if len(turns) == MAX_TURNS:
                raise InvalidRequest(f"More than {MAX_TURNS} responses go on from each other.", param=_PREVIOUS)
            if response_id not in ahead:
                ahead = await self._read_back(response_id)
            transcript, request = _previous(tenant, response_id, ahead.pop(response_id))
            turns.append(_inputs(turn_items(transcript)))
            if request.conversation or request.branch is not None:
                base = (await self.before(tenant, request, response_id)).messages
                break
            response_id = ResponseId(request.previous_response_id)
        return base + messages_of([item for turn in reversed(turns) for item in turn], _PREVIOUS)

    async def _read_back(self, response_id: ResponseId) -> dict[ResponseId, list[Entry]]:
        try:
            return await self._reader.read_back(response_id)
        except ResponseNotFound as exc:
            raise ResponseNotFound(exc.message, param=_PREVIOUS) from exc

    async def _before_turn(self, tenant: str, conversation: ConversationId, response_id: ResponseId | None) -> History:
        items, seen = await self._conversations.history(tenant, conversation, MAX_ITEMS + 1, response_id)
        if len(items) > MAX_ITEMS:
            raise InvalidRequest(f"The conversation has more than {MAX_ITEMS} items.", param="conversation")
        return History(_checked(messages_of(_stored_inputs(items), "conversation")), seen)

    async def _before_branch(self, tenant: str, branch: Branch) -> History:
        return await self._before_turn(tenant, ConversationId(branch.conversation), ResponseId(branch.turn))


def _previous(tenant: str, response_id: ResponseId, entries: list[Entry]) -> tuple[Transcript, GenerationRequest]:
    """Raises ResponseNotFound, InvalidRequest for a response from which nothing can go on."""
    transcript = transcript_of(entries)
    accepted = transcript.accepted
    if accepted is None or accepted.tenant != tenant:
        raise ResponseNotFound(f"No response with the id {response_id}.", param=_PREVIOUS)
    request = accepted.request
    if not request.store:
        raise ResponseNotFound(f"The response {response_id} was not stored.", param=_PREVIOUS)
    if transcript.terminal is None:
        raise InvalidRequest(f"The response {response_id} has not ended yet.", param=_PREVIOUS)
    if isinstance(transcript.terminal, Failed):
        raise InvalidRequest(f"The response {response_id} failed: nothing can go on from it.", param=_PREVIOUS)
    if request.embed is not None or request.has_bare_prompt:
        raise InvalidRequest(f"The response {response_id} is no answer to messages.", param=_PREVIOUS)
    return transcript, request


def _checked(messages: list[Message]) -> list[Message]:
    """Raises InvalidRequest for more than a request entry should hold."""
    if sum(len(message.text) + _image_bytes(message) for message in messages) > MAX_CHARACTERS:
        raise InvalidRequest(f"What came before this request is larger than {MAX_CHARACTERS} characters.")
    return messages


def _image_bytes(message: Message) -> int:
    return sum(len(part.url) for part in message.parts if isinstance(part, ImageContent))


def _inputs(items: Iterable[ItemObject]) -> list[InputItem]:
    """Raises InvalidRequest for an item that is larger than one may be that is sent."""
    try:
        return msgspec.convert(items, list[InputItem])
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"The history can not be sent to the model again: {exc}.", param=_PREVIOUS) from exc


def _stored_inputs(items: Iterable[StoredItem]) -> list[InputItem]:
    try:
        return [_decode.decode(item.body) for item in items]
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"The history can not be sent to the model again: {exc}.", param="conversation") from exc
