"""What is kept, what is not, and what goes out: with the official client and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import openai

from tests.acceptance.stack import RunningStack, running
from tests.acceptance.test_local_stack import openchat
from tests.waiting import until

MARKER = "kept-or-not-4d2e"


async def exported(data: Path, *more: str) -> dict[str, dict[str, Any]]:
    """Id → what was exported of it."""
    code, out, err = await openchat("export", "--data-dir", str(data), *more)
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    return {one["id"]: one for one in found}


async def is_gone(stack: RunningStack, response_id: str) -> bool:
    try:
        await stack.client(2).responses.retrieve(response_id)
    except openai.NotFoundError:
        return True
    return False


async def test_what_is_not_to_be_stored_is_served_like_everything_else_and_soon_gone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings = {"synthetic_tokens_per_second": "500", "unstored_ttl_s": "10"}
    async with running(data, "--engine", "synthetic", gateways=2, **settings) as stack:
        client = stack.client()
        asked: Any = {"model": "synthetic", "max_output_tokens": 3}
        kept = await client.responses.create(**asked, input="keep this")
        unstored = await client.responses.create(**asked, input=MARKER, store=False)
        assert (kept.model_extra or {}).get("store", True) is True
        assert unstored.output_text == " t0 t1 t2"
        assert unstored.to_dict()["store"] is False
        chat: Any = {"model": "synthetic", "messages": [{"role": "user", "content": MARKER}], "max_tokens": 3}
        answer = await client.chat.completions.create(**chat, store=False)
        assert answer.choices[0].message.content == " t0 t1 t2"
        events = await stack.client(2).responses.retrieve(unstored.id, stream=True, starting_after=4)
        assert [event.type async for event in events][-1] == "response.incomplete"
        chat_id = answer.id.replace("chatcmpl-", "resp_")
        for response_id in (unstored.id, chat_id):
            await until(lambda one=response_id: is_gone(stack, one), what="the end of its time")  # type: ignore[misc]
        assert not await is_gone(stack, kept.id)
        found = await exported(data, "--events")
        assert found.keys() == {kept.id, unstored.id, chat_id}
        assert found[kept.id]["response"]["output"][0]["content"][0]["text"] == " t0 t1 t2"
        assert found[kept.id]["request"]["messages"] == [{"role": "user", "content": "keep this"}]
        assert found[kept.id]["events"][0]["event"]["type"] == "accepted"
        for response_id in (unstored.id, chat_id):
            assert found[response_id].keys().isdisjoint({"request", "response", "events"})
            assert (found[response_id]["is_stored"], found[response_id]["output_tokens"]) == (False, 3)
            assert found[response_id]["accepted_at"] <= found[response_id]["ended_at"]
        assert MARKER not in json.dumps(found)
        async with httpx.AsyncClient(base_url=stack.url()) as plain:
            refused = await plain.post(
                "/v1/responses", json={**asked, "input": "hi", "previous_response_id": unstored.id}
            )
        assert refused.status_code == 404
        await client.responses.delete(kept.id)
        deleted = (await exported(data))[kept.id]
        assert deleted["status"] == "deleted"
        assert "response" not in deleted


async def test_an_export_is_of_a_tenant_and_of_a_time_and_what_can_not_be_read_is_said(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running(data, "--engine", "synthetic", synthetic_tokens_per_second="500") as stack:
        made = [
            await stack.client().responses.create(model="synthetic", input="hi", max_output_tokens=1) for _ in range(2)
        ]
        vectors = await stack.client().embeddings.create(model="synthetic", input=["a", "b"])
        assert len(vectors.data) == 2

        async def all_of_it() -> dict[str, dict[str, Any]]:
            found = await exported(data, "--tenant", "default", "--since", "2020-01-01")
            return found if len(found) == 3 else {}

        found = await until(all_of_it, what="the archiver")
        assert list(found)[:2] == [one.id for one in made]
        assert len(list(found.values())[2]["response"]["data"]) == 2
        assert await exported(data, "--tenant", "nobody") == {}
        assert await exported(data, "--until", found[made[0].id]["accepted_at"]) == {}
        assert len(await exported(data, "--since", "2100-01-01T00:00:00+01:00")) == 0
        code, _, err = await openchat("export", "--data-dir", str(data), "--since", "yesterday")
        assert (code, "is no time" in err) == (2, True)
        code, out, err = await openchat("sweep", "--data-dir", str(data))
        assert code == 0, err
        assert "expired responses: 0" in out
