"""What is the engine transformers' own (engine/transformers/); what all engines promise is in test_contract.py.

Run with the interpreter of its environment: `make test-transformers`.
"""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine.base import Delta, Generation
from engine.transformers.engine import TransformersEngine
from schemas.errors import CapabilityMissing, ContextTooLong, EngineDead, InvalidRequest, SettingsError
from schemas.ids import new_response_id
from schemas.requests import EmbeddingInput, GenerationRequest, Message
from schemas.tools import Tool, ToolCall
from tests.waiting import until

if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None:
    pytest.skip("transformers is not installed here", allow_module_level=True)

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # the libraries' own
    pytest.mark.timeout(300),
]

MODELS = Path(os.environ.get("OPENCHAT_TEST_MODELS", Path(__file__).parents[2] / ".models"))
SYSTEM = "You are a helpful assistant."
QUESTION = "What is the capital of France?"
SLOTS = 16


def folder(name: str) -> str:
    if not (MODELS / name / "config.json").exists():
        pytest.skip(f"the model {name} is not built")
    return str(MODELS / name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tiny() -> AsyncIterator[TransformersEngine]:
    engine = TransformersEngine(path=folder("tiny-llama"), slots=SLOTS, context_length=512, args={})
    await engine.start(print)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def threads() -> AsyncIterator[TransformersEngine]:
    """The same model without continuous batching."""
    args = {"batching": "streamers"}
    engine = TransformersEngine(path=folder("tiny-llama"), slots=4, context_length=512, args=args)
    await engine.start(print)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def smol() -> AsyncIterator[TransformersEngine]:
    engine = TransformersEngine(path=folder("smollm2-135m"), slots=SLOTS, context_length=1024, args={})
    await engine.start(print)
    yield engine
    await engine.close()


def asked(text: str = QUESTION, *, after: list[Delta] | None = None, **parameters: Any) -> Generation:
    request = GenerationRequest(
        model="m",
        **{"messages": [Message("user", text)], "temperature": 0.0, "max_output_tokens": 16} | parameters,
    )
    return Generation(
        id=new_response_id(),
        request=request,
        prefix_tokens=tuple(ids_of(after or [])),
        prefix_text=text_of(after or []),
    )


async def collect(engine: TransformersEngine, wanted: Generation) -> list[Delta]:
    return [delta async for delta in engine.generate(wanted)]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def ids_of(deltas: list[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.tokens]


def is_batched(engine: TransformersEngine) -> bool:
    return engine._serving is not None and engine._serving.batch is not None


def token_ids(engine: TransformersEngine, text: str) -> list[int]:
    assert engine._serving is not None
    ids: list[int] = engine._serving.prompts._tokenizer(text, add_special_tokens=False).input_ids
    return ids


async def test_it_answers_a_real_question(smol: TransformersEngine) -> None:
    deltas = await collect(smol, asked(instructions=SYSTEM))
    assert "Paris" in text_of(deltas)
    assert deltas[-1].finish_reason == "stop"


async def test_an_answer_of_60_tokens_goes_on_from_every_tenth_as_if_uninterrupted(smol: TransformersEngine) -> None:
    wanted: dict[str, Any] = {"text": "Tell me about the sea.", "instructions": SYSTEM, "max_output_tokens": 60}
    whole = await collect(smol, asked(**wanted))
    assert len(ids_of(whole)) == 60
    for cut in range(10, len(whole), 10):
        rest = await collect(smol, asked(after=whole[:cut], **wanted))
        assert text_of(whole[:cut]) + text_of(rest) == text_of(whole)
        assert ids_of(whole[:cut]) + ids_of(rest) == ids_of(whole)


async def test_an_answer_with_emoji_goes_on_from_every_delta_as_if_uninterrupted(tiny: TransformersEngine) -> None:
    said = [Delta(text="🙂 😀", tokens=tuple(token_ids(tiny, "🙂 😀")))]
    wanted: dict[str, Any] = {"text": "Go on: 🙂 😀 🎉 你", "max_output_tokens": 48}
    whole = said + await collect(tiny, asked(after=said, **wanted))
    for cut in range(1, len(whole)):
        rest = await collect(tiny, asked(after=whole[:cut], **wanted))
        assert text_of(whole[:cut]) + text_of(rest) == text_of(whole)
        assert ids_of(whole[:cut]) + ids_of(rest) == ids_of(whole)


async def test_batch_and_threads_give_the_same_greedy_text(
    tiny: TransformersEngine, threads: TransformersEngine
) -> None:
    assert is_batched(tiny)
    assert not is_batched(threads)
    for text in ("What is a list?", "Return the number of bytes", "Hello 🙂"):
        wanted = asked(text, max_output_tokens=40)
        assert await collect(tiny, wanted) == await collect(threads, wanted)


async def test_each_of_a_batch_is_sampled_as_it_asks(smol: TransformersEngine) -> None:
    text = "Tell me a story."
    greedy = text_of(await collect(smol, asked(text, max_output_tokens=24)))
    temperatures = [0.0, 1.0] * 6 + [1.5, 1.5]
    results = await asyncio.gather(
        *(collect(smol, asked(text, temperature=one, max_output_tokens=24)) for one in temperatures)
    )
    texts = [text_of(deltas) for deltas in results]
    assert all(said == greedy for said, one in zip(texts, temperatures, strict=True) if one == 0)
    sampled = [said for said, one in zip(texts, temperatures, strict=True) if one > 0]
    assert len(set(sampled)) == len(sampled)
    narrow = await collect(smol, asked(text, temperature=1.0, top_p=0.0001, max_output_tokens=24))
    assert text_of(narrow) == greedy


async def test_a_seed_makes_the_same_sample_also_from_the_middle(
    tiny: TransformersEngine, threads: TransformersEngine
) -> None:
    wanted: dict[str, Any] = {"text": "Tell me a story.", "temperature": 3.0, "max_output_tokens": 24, "top_p": 0.99}
    first, second = [await collect(engine, asked(seed=7, **wanted)) for engine in (tiny, threads)]
    other = await collect(tiny, asked(seed=8, **wanted))
    assert text_of(first) == text_of(second) != text_of(other)
    rest = await collect(tiny, asked(seed=7, after=first[:9], **wanted))
    assert ids_of(first[:9]) + ids_of(rest) == ids_of(first)


async def test_penalties_are_honoured_beside_a_batch(smol: TransformersEngine) -> None:
    wanted: dict[str, Any] = {"messages": [], "prompt": "one two one two one two one", "max_output_tokens": 24}
    plain = await collect(smol, asked(**wanted))
    wanted |= {"frequency_penalty": 2.0, "presence_penalty": 2.0}
    punished = await collect(smol, asked(**wanted))
    assert repeats(punished) < repeats(plain)
    rest = await collect(smol, asked(after=punished[:7], **wanted))
    assert ids_of(punished[:7]) + ids_of(rest) == ids_of(punished), "what was generated before counts"


def repeats(deltas: list[Delta]) -> int:
    return len(ids_of(deltas)) - len(set(ids_of(deltas)))


async def test_sixteen_at_once_say_what_each_says_alone(smol: TransformersEngine) -> None:
    words = "apple river stone cloud tiger paper window silver garden letter dragon candle forest orange bridge sun"
    wanted = [asked(f"Repeat this word: {word}", instructions=SYSTEM) for word in words.split()]
    assert len(wanted) == SLOTS
    alone = [text_of(await collect(smol, one)) for one in wanted]
    together = await asyncio.gather(*(collect(smol, one) for one in wanted))
    assert [text_of(deltas) for deltas in together] == alone


async def test_leaving_frees_the_place_in_the_batch(tiny: TransformersEngine) -> None:
    assert tiny._serving is not None
    assert tiny._serving.batch is not None
    manager = tiny._serving.batch._manager
    streams = [tiny.generate(asked("Tell me a story.", max_output_tokens=400)) for _ in range(SLOTS)]
    await asyncio.gather(*(anext(stream) for stream in streams))
    await asyncio.gather(*(stream.aclose() for stream in streams))
    await until(lambda: not manager.batch_processor.has_pending_requests(), timeout_s=5)
    assert not manager.output_router.result_handlers
    await collect(tiny, asked(max_output_tokens=2))
    assert manager.output_router.output_queue.empty()


async def test_leaving_ends_the_threads(threads: TransformersEngine) -> None:
    assert threads._serving is not None
    streams = [threads.generate(asked("Tell me a story.", max_output_tokens=400)) for _ in range(4)]
    await asyncio.gather(*(anext(stream) for stream in streams))
    await asyncio.gather(*(stream.aclose() for stream in streams))
    async with asyncio.timeout(10):
        assert (await collect(threads, asked(max_output_tokens=2)))[-1].finish_reason
    assert not threads._serving._streams._runs


@pytest.mark.parametrize("batching", ["continuous", "streamers"])
async def test_closed_in_the_middle_an_answer_has_no_end_and_no_reason(batching: str) -> None:
    engine = TransformersEngine(path=folder("tiny-llama"), slots=1, context_length=512, args={"batching": batching})
    await engine.start(print)
    streams = [engine.generate(asked("Tell me a story.", max_output_tokens=400)) for _ in range(2)]
    readers = [asyncio.create_task(exhausted(stream)) for stream in streams]
    await until(lambda: engine._serving is not None and at_work(engine._serving) == 2)
    await engine.close()
    async with asyncio.timeout(20):
        ends = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(end) for end in ends] == [EngineDead, EngineDead]


def at_work(serving: Any) -> int:
    return len(serving.batch._manager.output_router.result_handlers if serving.batch else serving._streams._runs)


async def exhausted(stream: AsyncGenerator[Delta, None]) -> None:
    async for _ in stream:
        pass


async def test_a_dead_batch_is_a_dead_engine_that_can_be_started_again() -> None:
    engine = TransformersEngine(path=folder("tiny-llama"), slots=2, context_length=256, args={})
    await engine.start(print)
    assert engine._serving is not None
    assert engine._serving.batch is not None
    stream = engine.generate(asked("Tell me a story.", max_output_tokens=200))
    await anext(stream)
    engine._serving.batch._manager.batch_processor.update_batch = None  # the next step raises in the thread
    with pytest.raises(EngineDead):
        await asyncio.wait_for(exhausted(stream), 20)
    with pytest.raises(EngineDead):
        await engine.check()
    with pytest.raises(EngineDead):
        await collect(engine, asked())
    await engine.close()
    await engine.close()
    await engine.start(print)
    assert (await collect(engine, asked()))[-1].finish_reason
    await engine.close()


async def test_ids_that_the_model_does_not_know_are_refused(tiny: TransformersEngine) -> None:
    with pytest.raises(InvalidRequest, match="token ids"):
        await collect(tiny, asked(messages=[], prompt=[10**6]))
    assert (await collect(tiny, asked(max_output_tokens=2)))[-1].finish_reason


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(tiny: TransformersEngine) -> None:
    with pytest.raises(ContextTooLong, match=r"700 tokens.*512 tokens"):
        await collect(tiny, asked(messages=[], prompt=[5] * 700))


async def test_logprobs_come_with_the_tokens_that_they_are_of(tiny: TransformersEngine) -> None:
    deltas = await collect(tiny, asked(logprobs=True, top_logprobs=2))
    assert ids_of(deltas) == ids_of(await collect(tiny, asked()))
    assert all(len(delta.logprobs) == len(delta.tokens) for delta in deltas)
    for entry in (entry for delta in deltas for entry in delta.logprobs):
        assert entry.logprob == pytest.approx(entry.top[0].logprob)


def prompts_with(engine: TransformersEngine, template: str | None) -> Any:
    """Those of the engine, with another template."""
    assert engine._serving is not None
    prompts = copy.copy(engine._serving.prompts)
    prompts._template = template
    return prompts


TEMPLATE = """
{%- if messages[0].role == 'user' %}{{ raise_exception('begin with a system message') }}{% endif %}
{%- for tool in tools or [] %}<tool>{{ tool.function.name }}</tool>{% endfor %}
{%- for m in messages %}[{{ m.role }}]{{ m.content }}
{%- for call in m.tool_calls or [] %}<call>{{ call.function.name }} {{ call.function.arguments.city }}</call>
{%- endfor %}
{%- endfor %}[assistant]"""


async def test_messages_reach_the_template_as_it_expects_them(tiny: TransformersEngine) -> None:
    prompts = prompts_with(tiny, TEMPLATE)
    turns = [
        Message("developer", "Be brief."),
        Message("user", "Weather?"),
        Message("assistant", "", tool_calls=[ToolCall("c1", "get_weather", '{"city": "Paris"}')]),
        Message("tool", "sunny", tool_call_id="c1"),
    ]
    request = asked(messages=turns, tools=[Tool(name="get_weather")]).request
    text = "[system]Be brief.[user]Weather?[assistant]<call>get_weather Paris</call>[tool]sunny[assistant]"
    assert prompts.decode(prompts.ids_of(request)) == "<tool>get_weather</tool>" + text
    no_tools = asked(messages=turns, tools=[Tool(name="get_weather")], tool_choice="none").request
    assert prompts.decode(prompts.ids_of(no_tools)) == text
    with pytest.raises(InvalidRequest, match="begin with a system message"):
        prompts.ids_of(asked("Hello").request)


async def test_a_model_without_a_template_takes_bare_prompts_only(tiny: TransformersEngine) -> None:
    prompts = prompts_with(tiny, None)
    with pytest.raises(InvalidRequest, match="no chat template"):
        prompts.ids_of(asked("Hello").request)
    assert prompts.ids_of(asked(messages=[], prompt="Hello").request)


@pytest.mark.parametrize(
    ("path", "args", "context"),
    [
        ("", {}, 0),
        ("/nowhere", {}, 0),
        ("tiny-llama", {}, 100_000),
        ("tiny-llama", {"device": "cuda:99"}, 0),
        ("tiny-llama", {"attn_implementation": "sideways"}, 0),
        ("tiny-llama", {"chat_template": "/nowhere.jinja"}, 0),
        ("tiny-llama", {"batching": "continuous", "attn_implementation": "eager"}, 0),
    ],
)
async def test_what_can_not_be_loaded_is_a_clear_error(path: str, args: dict[str, Any], context: int) -> None:
    found = folder(path) if path == "tiny-llama" else path
    engine = TransformersEngine(path=found, context_length=context, args=args)
    with pytest.raises(SettingsError):
        await engine.start(print)
    await engine.close()


def break_copy(source: Path, target: Path, broken: str) -> None:
    for file in source.iterdir():
        (target / file.name).write_bytes(b"broken" if file.name == broken else file.read_bytes())


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors", "tokenizer.json"])
async def test_a_broken_folder_is_a_clear_error(broken: str, tmp_path: Path) -> None:
    break_copy(Path(folder("tiny-llama")), tmp_path, broken)
    engine = TransformersEngine(path=str(tmp_path), args={})
    with pytest.raises((SettingsError, EngineDead), match=str(tmp_path)):
        await engine.start(print)
    await engine.close()


async def test_an_attention_that_can_not_be_batched_is_served_by_threads() -> None:
    lines: list[str] = []
    args = {"attn_implementation": "eager", "dtype": "bfloat16"}
    engine = TransformersEngine(path=folder("tiny-llama"), slots=2, args=args)
    await engine.start(lines.append)
    assert not is_batched(engine)
    assert any("bfloat16 on cpu, streamers, 2 slots, context 1024 tokens" in line for line in lines)
    assert (await collect(engine, asked()))[-1].finish_reason
    await engine.close()


async def test_a_sentence_model_embeds_what_is_alike_alike() -> None:
    engine = TransformersEngine(path=folder("minilm"), args={}, embeds=True)
    await engine.start(print)
    assert engine.context_length == 256, "of sentence_bert_config.json"
    inputs: list[str | list[int]] = ["A man is eating food.", "Someone eats a meal.", "The stock market fell today."]
    man, meal, market = (await engine.embed(EmbeddingInput(inputs=inputs))).vectors
    assert len(man) == 384
    assert dot(man, man) == pytest.approx(1.0, abs=1e-4)
    assert dot(man, meal) > 0.6 > 0.3 > dot(man, market)
    with pytest.raises(ContextTooLong, match=r"302 tokens.*256 tokens"):
        await engine.embed(EmbeddingInput(inputs=["word " * 300]))
    await engine.close()


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_it_embeds_and_then_does_nothing_else() -> None:
    engine = TransformersEngine(path=folder("tiny-llama"), args={}, embeds=True)
    await engine.start(print)
    together = await engine.embed(EmbeddingInput(inputs=["a cat", "a much longer text about dogs", [5, 6, 7]]))
    alone = await engine.embed(EmbeddingInput(inputs=["a cat"]))
    assert together.vectors[0] == pytest.approx(alone.vectors[0], abs=1e-4), "padding changes nothing"
    assert sum(value * value for value in together.vectors[1]) == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(CapabilityMissing):
        await collect(engine, asked())
    await engine.check()
    await engine.close()
    with pytest.raises(EngineDead):
        await engine.check()
