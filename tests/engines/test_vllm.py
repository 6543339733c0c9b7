"""What is vLLM's own, on its CPU build: arguments, parsers, adapters, its death. The rest is in test_contract.py.

Needs vLLM and the models of `make test-vllm`; skipped without them. One engine serves the module: a start takes
half a minute.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine.base import Delta, Generation
from schemas.errors import CapabilityMissing, EngineDead, InvalidRequest, ModelNotFound, SettingsError
from schemas.ids import new_response_id
from schemas.requests import GenerationRequest, Message, OutputFormat
from schemas.tools import Tool, ToolName
from tests.waiting import until

pytest.importorskip("vllm")

from engine.vllm.engine import VllmEngine
from engine.vllm.pieces import Codec, End, ParsedPieces

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # vLLM and torch warn as they like
    pytest.mark.timeout(300),
]

MODELS = Path(os.environ.get("OPENCHAT_TEST_MODELS", ".models"))
TINY = MODELS / "tiny-llama"
FLUENT = MODELS / "smollm2-135m"
if not (TINY / "config.json").exists() or not (FLUENT / "config.json").exists():
    pytest.skip("the models are not built", allow_module_level=True)

EMOJI = "🌈 🎈 😀 🎉 🚀 🌍 🐱 🍕 🌈 🎈 😀 🎉 🚀"
"""In characters that the tiny model was taught."""
WEATHER = Tool(
    name="get_weather",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "maximum": 9}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
EFFORT = "{% if reasoning_effort %}effort {{ reasoning_effort }} {{ enable_thinking }}{% endif %}"
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>'


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A LoRA adapter for the tiny model that changes what it says."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("adapter")
    config = json.loads((TINY / "config.json").read_bytes())
    width, rank = config["hidden_size"], 8
    out = config["num_attention_heads"] * config["head_dim"]
    torch.manual_seed(1)
    weights: dict[str, Any] = {}
    for layer in range(config["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(rank, width)
        weights[f"{name}.lora_B.weight"] = torch.randn(out, rank)
    save_file(weights, folder / "adapter_model.safetensors")
    wanted = {"peft_type": "LORA", "r": rank, "lora_alpha": 32, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(wanted))
    return str(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(adapter: str) -> AsyncIterator[VllmEngine]:
    engine = VllmEngine(
        path=str(TINY),
        slots=16,
        context_length=512,
        adapters={"odd": adapter},
        args={
            "kv_cache_memory_bytes": 64 << 20,
            "tool_parser": "hermes",
            "chat_template": (TINY / "chat_template.jinja").read_text() + EFFORT,
            # else the toy may write spaces until its limit
            "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        },
    )
    lines: list[str] = []
    await engine.start(lines.append)
    assert any("float32, 16 slots, context 512, KV cache of" in line for line in lines)
    yield engine
    await engine.close()
    await engine.close()
    gc.collect()  # here, where the warnings of vLLM's sockets do not count


def asked(text: str = "Count from one to fifty.", **parameters: Any) -> GenerationRequest:
    standard = {"messages": [Message("user", text)], "temperature": 0.0, "max_output_tokens": 24}
    return GenerationRequest(model="m", **standard | parameters)


async def collect(engine: VllmEngine, request: GenerationRequest, before: list[Delta] | None = None) -> list[Delta]:
    prefix = Generation(
        id=new_response_id(),
        request=request,
        prefix_tokens=tuple(ids_of(before or [])),
        prefix_text=text_of(before or []),
    )
    return [delta async for delta in engine.generate(prefix)]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def ids_of(deltas: list[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.tokens]


def arguments_of(deltas: list[Delta]) -> tuple[str, Any]:
    pieces = [delta.tool for delta in deltas if delta.tool is not None]
    assert {piece.index for piece in pieces} == {0}
    return "".join(p.name for p in pieces), json.loads("".join(p.arguments for p in pieces))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"max_num_seq": 3}, "unknown argument 'max_num_seq'; did you mean max_num_seqs"),
        ({"tool_parsr": "hermes"}, "did you mean tool_parser"),
        ({"dtype": "float99"}, "float99"),
        ({"max_model_len": 99_999_999}, "max_model_len"),
        ({"tool_parser": 3}, "tool_parser"),
        ({"reasoning_parser": "none such"}, "none such"),
    ],
)
async def test_a_wrong_argument_is_named_before_anything_is_loaded(args: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        await VllmEngine(path=str(TINY), args=args).start(print)


async def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=str(tmp_path)):
        await VllmEngine(path=str(tmp_path)).start(print)
    with pytest.raises(SettingsError, match="is no folder"):
        VllmEngine(path=str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="adapter 'a'"):
        await VllmEngine(path=str(TINY), adapters={"a": str(tmp_path)}).start(print)


async def test_it_declares_what_it_can(engine: VllmEngine) -> None:
    names = {
        "generates",
        "continues",
        "completions",
        "tools",
        "json_schema",
        "logprobs",
        "logit_bias",
        "reasoning_effort",
    }
    assert set(engine.capabilities.names) == names
    assert (engine.capacity, engine.context_length) == (16, 512)


async def test_a_reasoning_effort_reaches_the_template_as_in_vllms_server(engine: VllmEngine) -> None:
    serving = engine._renderer
    assert serving is not None
    prompts = {}
    for effort in (None, "none", "high"):
        prompt = await serving.render(asked(reasoning_effort=effort))
        prompts[effort] = engine._tokenizer.decode(prompt.ids).partition("assistant\n")[2]
    assert prompts == {None: "", "none": "effort none False", "high": "effort high True"}


async def test_continued_at_every_token_an_answer_with_emoji_is_the_same(engine: VllmEngine) -> None:
    """Also within a character: the prefix is ids, and the next text is the whole character."""
    wanted = asked(messages=[], prompt=EMOJI, max_output_tokens=40)
    whole = await collect(engine, wanted)
    assert any(len(delta.tokens) > 1 and not delta.text.isascii() for delta in whole)
    ids = ids_of(whole)
    text = ""
    done = 0
    for delta in whole:
        for cut in range(done, done + len(delta.tokens)):
            rest = await collect(engine, wanted, [Delta(text=text, tokens=tuple(ids[:cut]))])
            assert text + text_of(rest) == text_of(whole), f"continued after {cut} tokens"
            assert ids[:cut] + ids_of(rest) == ids
        text += delta.text
        done += len(delta.tokens)


async def test_output_of_a_schema_is_json_that_fits_it(engine: VllmEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Ada", "Alan"]}, "old": {"type": "boolean"}},
        "required": ["name", "old"],
        "additionalProperties": False,
    }
    deltas = await collect(engine, asked(output_format=OutputFormat(schema=schema), max_output_tokens=200))
    found = json.loads(text_of(deltas))
    assert found["name"] in ("Ada", "Alan")
    assert isinstance(found["old"], bool)


async def test_a_schema_that_is_none_is_refused_and_the_engine_lives(engine: VllmEngine) -> None:
    with pytest.raises(InvalidRequest):
        await collect(engine, asked(output_format=OutputFormat(schema={"type": "no such type"})))
    assert await collect(engine, asked(max_output_tokens=2))


async def test_the_logprobs_beside_a_token_are_a_distribution(engine: VllmEngine) -> None:
    deltas = await collect(engine, asked(logprobs=True, top_logprobs=20))
    entries = [entry for delta in deltas for entry in delta.logprobs]
    assert "".join(entry.token for entry in entries) == text_of(deltas)
    for entry in entries:
        assert entry.logprob == entry.top[0].logprob
        assert sum(math.exp(likely.logprob) for likely in entry.top) <= 1.001
        assert len(entry.top) == 20


async def test_an_adapter_is_asked_for_by_name(engine: VllmEngine) -> None:
    plain = await collect(engine, asked())
    odd = await collect(engine, asked(adapter="odd"))
    assert text_of(odd) != text_of(plain)
    with pytest.raises(ModelNotFound, match="odd"):
        await collect(engine, asked(adapter="none such"))


@pytest.mark.parametrize("choice", ["required", ToolName("get_weather")])
async def test_a_call_that_must_be_made_is_made(engine: VllmEngine, choice: Any) -> None:
    wanted = asked(tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False, max_output_tokens=300)
    deltas = await collect(engine, wanted)
    assert not text_of(deltas)
    name, arguments = arguments_of(deltas)
    assert name == "get_weather"
    assert len(arguments["city"]) <= 8
    assert all(len(delta.tokens) for delta in deltas[:-1])


async def test_without_a_parser_tools_are_refused_by_name() -> None:
    with pytest.raises(CapabilityMissing, match="tools"):
        await collect(VllmEngine(path=str(TINY)), asked(tools=[WEATHER]))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The tiny model's, with the marks that reasoning models have."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def parsed(tokenizer: Any, prefix: list[int], *, stops: tuple[str, ...] = ()) -> ParsedPieces:
    from vllm.parser import ParserManager

    from engine.vllm import prompt

    chat = prompt._ChatRequest(**prompt._chat_body(asked(tools=[WEATHER])))
    made = ParserManager.get_parser(
        tool_parser_name="hermes", reasoning_parser_name="deepseek_r1", enable_auto_tools=True, tokenizer=tokenizer
    )
    assert made is not None
    codec = Codec(tokenizer._tokenizer.decode, lambda text: list(tokenizer.encode(text, add_special_tokens=False)))
    parser = made(tokenizer, chat.tools)
    return ParsedPieces(
        codec, parser=parser, chat=chat, prompt=[1], prefix=prefix, stops=stops, is_silent=lambda _: False
    )


def said(pieces: ParsedPieces, ids: list[int], end: int = 2) -> Iterator[Delta]:
    for token in ids:
        yield from pieces.push([token])
    yield from pieces.push([], end=End(end))


def test_reasoning_text_and_a_call_come_apart_and_every_id_goes_out_once(tokenizer: Any) -> None:
    ids = tokenizer.encode(f"<think>I look 🎉 it up</think>Well. {CALL}", add_special_tokens=False)
    pieces = parsed(tokenizer, [])
    deltas = list(said(pieces, ids))
    assert "".join(delta.reasoning for delta in deltas) == "I look 🎉 it up"
    assert text_of(deltas).strip() == "Well."
    assert arguments_of(deltas) == ("get_weather", {"city": "Paris", "days": 3})
    assert all(delta.tokens for delta in deltas)
    assert ids_of(deltas) == ids[: len(ids_of(deltas))]
    assert pieces.count == len(ids)
    assert 0 < pieces.reasoning_tokens < len(ids)


def test_continued_from_every_piece_the_parsers_go_on_where_they_were(tokenizer: Any) -> None:
    ids = tokenizer.encode(f"<think>I look 🎉 it up</think>Well. {CALL}", add_special_tokens=False)
    whole = list(said(parsed(tokenizer, []), ids))
    for cut in range(len(whole)):
        before = ids_of(whole[:cut])
        rest = list(said(parsed(tokenizer, before), ids[len(before) :]))
        assert [(d.text, d.reasoning, d.tool) for d in rest] == [(d.text, d.reasoning, d.tool) for d in whole[cut:]]
        assert ids_of(rest) == ids_of(whole[cut:])


def test_a_stop_string_ends_what_a_parser_reads(tokenizer: Any) -> None:
    ids = tokenizer.encode("<think>so</think>one two three four", add_special_tokens=False)
    pieces = parsed(tokenizer, [], stops=("wo th",))
    deltas = [delta for token in ids for delta in pieces.push([token])]
    assert pieces.stopped
    assert text_of(deltas) == "one t"
    assert pieces.count < len(ids)


async def test_leaving_ends_the_request_in_the_engine(engine: VllmEngine) -> None:
    streams = [
        engine.generate(Generation(id=new_response_id(), request=asked(max_output_tokens=400, seed=n, temperature=1.5)))
        for n in range(16)
    ]
    await asyncio.gather(*(anext(stream) for stream in streams))
    await asyncio.gather(*(stream.aclose() for stream in streams))
    assert engine._llm.get_num_unfinished_requests() == 0


async def test_every_tenth_token_of_a_real_answer_continues_to_the_same_end() -> None:
    engine = VllmEngine(path=str(FLUENT), slots=4, context_length=512, args={"kv_cache_memory_bytes": 128 << 20})
    await engine.start(print)
    try:
        wanted = asked("Tell me about the ocean.", max_output_tokens=60)
        whole = await collect(engine, wanted)
        assert whole[-1].output_tokens == 60
        for cut in range(10, len(whole), 10):
            rest = await collect(engine, wanted, whole[:cut])
            assert text_of(whole[:cut]) + text_of(rest) == text_of(whole)
            assert ids_of(whole[:cut]) + ids_of(rest) == ids_of(whole)
    finally:
        await engine.close()


async def test_the_engine_core_does_not_outlive_a_killed_worker() -> None:
    """Else it would keep the memory of the GPU, and no worker could start there again."""
    program = (
        "import asyncio, sys\n"
        "from engine.vllm.engine import VllmEngine\n"
        "async def main():\n"
        "    engine = VllmEngine(path=sys.argv[1], slots=2, args={'kv_cache_memory_bytes': 64 << 20})\n"
        "    await engine.start(lambda line: None)\n"
        "    (core,) = engine._llm.engine_core.resources.engine_manager.processes\n"
        "    print('core', core.pid, flush=True)\n"
        "    await asyncio.sleep(300)\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    command = (sys.executable, "-c", program, str(TINY))
    owner = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert owner.stdout is not None
    async with asyncio.timeout(200):
        while not (line := await owner.stdout.readline()).startswith(b"core "):
            assert line, "it did not start"
    owner.kill()
    await owner.wait()
    core = Path("/proc") / line.split()[1].decode()
    await until(lambda: has_ended(core), what="the end of the engine core")


def has_ended(process: Path) -> bool:
    try:
        return "State:\tZ" in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_a_killed_engine_core_is_noticed_and_a_new_start_serves(engine: VllmEngine) -> None:
    """Last in this module."""
    (core,) = engine._llm.engine_core.resources.engine_manager.processes
    stream = engine.generate(Generation(id=new_response_id(), request=asked(max_output_tokens=400, temperature=1.5)))
    await anext(stream)
    os.kill(core.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        with pytest.raises(EngineDead):
            async for _ in stream:
                pass
        with pytest.raises(EngineDead):
            await engine.check()
        with pytest.raises(EngineDead):
            await collect(engine, asked())
    await engine.close()
    gc.collect()
    with pytest.raises(EngineDead):
        await engine.check()
    await engine.start(print)
    assert text_of(await collect(engine, asked()))
