"""What is asked of a worker, and the entries of the streams around it.

Shapes are versioned by `v`; unknown fields are ignored, so a newer writer may add some.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.ids import ResponseId
from schemas.tools import Tool, ToolCall, ToolName

Role = Literal["system", "developer", "user", "assistant", "tool"]
Lane = Literal["interactive", "batch"]
Format = str
"""The API in whose words a response was asked for: responses, chat, completions, embeddings, or one from outside."""
ServiceTier = Literal["default", "flex", "priority"]
OnDisconnect = Literal["cancel", "continue"]
Takeover = Literal["continue", "restart", "fail"]
"""What another worker does with a response that one began: goes on with its text; begins again if nothing
was shown, else ends it; ends it if it was begun at all."""
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]
Truncation = Literal["disabled", "auto"]
_Id = Annotated[ResponseId, Meta(pattern=r"\Aresp_[0-9a-f]{32}\Z")]
"""Checked, because keys are made of it."""
LANES: tuple[Lane, ...] = ("interactive", "batch")
"""In the order in which a worker reads them."""
MAX_CHOICES = 128
"""Of one response, OpenAI's maximum of `n`."""
_SEEDS = 1 << 64


class TextContent(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """A text part of a message."""

    text: str


class ImageContent(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="image"):
    """An image part of a message, as a `data:` URL."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of the conversation. Content that is text alone is one string."""

    role: Role
    content: str | list[TextContent | ImageContent]
    tool_calls: list[ToolCall] = []
    """Of an assistant: the calls that it made."""
    tool_call_id: str = ""
    """Of a tool: the call that this is the result of."""

    @property
    def parts(self) -> list[TextContent | ImageContent]:
        return [TextContent(self.content)] if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextContent))


class OutputFormat(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the output must be: any JSON object, or what a JSON schema allows."""

    schema: dict[str, Any] | None = None
    """None: any JSON object."""
    name: str = ""
    description: str | None = None
    strict: bool | None = None


class EmbeddingInput(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What to turn into vectors, one for each input."""

    inputs: list[str | list[int]]
    """Texts, or texts as token ids of the model."""
    dimensions: int | None = None
    """Length of the vectors, where the model can shorten them."""
    encoding: Literal["float", "base64"] = "float"
    """How the answer writes them."""


class Branch(msgspec.Struct, frozen=True):
    """A place in a conversation: before one of its turns."""

    conversation: str
    """`conv_` and 32 hex digits."""
    turn: str
    """`resp_` and 32 hex digits."""


class ContinuedMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message of a UI message stream that the answer is added to: the assistant's, whose calls were answered."""

    id: str
    """As its client knows it."""
    chunks: list[dict[str, Any]] = []
    """What shows it as it was before, to a client that comes back and builds it anew."""


class GenerationRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The complete request as a worker needs it: messages resolved, names canonical."""

    model: str
    messages: list[Message] = []
    instructions: str | None = None
    prompt: str | list[int] | None = None
    """Legacy completions: this text (or these token ids), without a chat template; then there are no messages."""
    prompts: Annotated[list[str | list[int]], Meta(max_length=MAX_CHOICES)] = []
    """Several of them instead of the one, each with choices of its own."""
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] = 1
    """So many choices of the same messages, or of each prompt."""
    embed: EmbeddingInput | None = None
    """Embeddings instead of text."""
    adapter: str = ""
    """A LoRA adapter of the model, by the name under which the caller knows it."""
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: list[str] = []
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    tools: list[Tool] = []
    tool_choice: Literal["auto", "none", "required"] | ToolName = "auto"
    allowed_tools: list[str] = []
    """Names of those tools that may be called; empty: all."""
    parallel_tool_calls: bool = True
    output_format: OutputFormat | None = None
    """None: text."""
    logprobs: bool = False
    top_logprobs: int = 0
    """Of so many other tokens as well."""
    logit_bias: dict[int, float] = {}
    """Token id → what is added to its logit before a token is chosen, -100 to 100."""
    reasoning_effort: ReasoningEffort | None = None
    """None: the model's own."""
    reasoning_summary: Literal["auto"] | None = None
    """Shown in the answer, and no more."""
    verbosity: Verbosity | None = None
    """None: the model's own, which is what `medium` means."""
    truncation: Truncation = "disabled"
    """`auto`: where the messages do not fit the context, the oldest are left out."""
    metadata: dict[str, str] = {}
    user: str | None = None
    service_tier: ServiceTier | None = None
    """As it is served, and as the answer names it; None: nobody asked, which is served as `default`."""
    safety_identifier: str | None = None
    """The caller's end user, as `user` is: neither is passed on."""
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    """The longest time for which a prompt may be cached: no engine keeps one longer than its process lives."""
    max_tool_calls: int | None = None
    """Of tools that the server runs: there are none, so it is only shown."""
    include_usage: bool = False
    """Chat completions: a last chunk with the usage (`stream_options.include_usage`)."""
    deadline_at_ms: int = 0
    """Unix time after which the response is ended with `failed`; 0: none."""
    traceparent: str | None = None
    background: bool = False
    """Nobody waits for it: it goes on without a viewer."""
    on_disconnect: OnDisconnect = "cancel"
    """What becomes of it when its last viewer has left (`x-openchat-on-disconnect`)."""
    takeover: Takeover | None = None
    """What becomes of it when its worker dies (`x-openchat-takeover`); None: what the model says."""
    store: bool = True
    """False: nothing of what was asked and answered is kept."""
    continued: ContinuedMessage | None = None
    """UI message stream: None where the answer is a message of its own."""
    conversation: str = ""
    """Id of the conversation that it is a turn of, `conv_` and 32 hex digits; empty: none."""
    previous_response_id: str = ""
    """Id of the response that it goes on from, `resp_` and 32 hex digits; empty: none."""
    branch: Branch | None = None
    """Of a fork of a turn: it has that turn's history, and is none itself. Then `conversation` is empty."""

    @property
    def choices(self) -> int:
        """How many answers the response has; choice `k` is one of prompt `k // n`."""
        return self.n * max(1, len(self.prompts))

    @property
    def has_bare_prompt(self) -> bool:
        """It is no conversation: the model goes on with a text."""
        return self.prompt is not None or bool(self.prompts)

    def of_choice(self, choice: int) -> GenerationRequest:
        """What one choice asks of an engine, which knows nothing of the others.

        With a seed each choice has another one, the next: they would else be the same.
        """
        if self.choices == 1:
            return self
        prompt = self.prompts[choice // self.n] if self.prompts else self.prompt
        seed = None if self.seed is None else _signed(self.seed + choice)
        return msgspec.structs.replace(self, n=1, prompts=[], prompt=prompt, seed=seed)

    @property
    def is_guided(self) -> bool:
        """The output is held to a grammar, whose state another worker can not take over."""
        must_call = bool(self.tools) and self.tool_choice not in ("auto", "none")
        return self.output_format is not None or must_call

    @property
    def lane(self) -> Lane:
        """Where it waits: `flex` yields to everything else."""
        return "batch" if self.service_tier == "flex" else "interactive"

    @property
    def shown_model(self) -> str:
        """The model as the caller named it."""
        return self.adapter or self.model

    @property
    def needs_viewer(self) -> bool:
        """It is ended when its last viewer has left."""
        return not self.background and self.on_disconnect == "cancel"

    def for_engine(self) -> GenerationRequest:
        """With those tools alone that may be called."""
        if not self.allowed_tools:
            return self
        allowed = [tool for tool in self.tools if tool.name in self.allowed_tools]
        return msgspec.structs.replace(self, tools=allowed, allowed_tools=[])

    def prompt_messages(self) -> list[Message]:
        """The messages with the instructions in front."""
        if self.instructions is None:
            return self.messages
        return [Message("system", self.instructions), *self.messages]


def _signed(seed: int) -> int:
    """Within 64 bits, as the API takes them."""
    return (seed + _SEEDS // 2) % _SEEDS - _SEEDS // 2


class RequestEntry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An entry of `oc:requests:{<model>:<lane>}`."""

    v: int = 1
    id: _Id
    tenant: str
    accepted_at_ms: int
    request: GenerationRequest
    format: Format = "responses"
    """The API in whose words it was asked; for who sends it again."""
    key: str = ""
    """The API key that asked, by its id; for who sends it again."""
    history: int = 0
    """So many of the messages came before this request: its log has only those behind them."""
    copied: int = 0
    """So many events its log had from the start, copied from another (a fork); for who sends it again."""
    request_id: str = ""
    """The `x-request-id` of the HTTP request; for the worker's log lines."""


class FinishedEntry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An entry of `oc:finished`: a claim check, the log holds the rest."""

    v: int = 1
    id: _Id
    status: str
    letter: str = ""
    """The dead letter that this was sent again from; should it be refused again, a new one takes its place."""


class ControlEntry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An entry of `oc:control`, which every worker tails: a hint, the log is the truth."""

    v: int = 1
    ended: _Id
    """This response was ended by somebody else: look at its log and stop generating."""


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An entry of `oc:dead`, with everything needed to send it again."""

    v: int = 1
    stream: str
    """Key of the stream from which the entry came."""
    entry_id: str
    reason: str
    """Stable, for programs."""
    error: str = ""
    """What was wrong, in words."""
    attempts: int = 0
    body: str
    """The entry as it stood; bytes that are no UTF-8 are escaped with backslashes."""
