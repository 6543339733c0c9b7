"""Tenants, keys and usage as people handle them: the command line, the admin endpoints, the official client."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.acceptance.stack import RunningStack, running
from tests.acceptance.test_local_stack import openchat
from tests.database import MariaDB
from tests.waiting import until


def value_of(out: str, label: str) -> str:
    return out.split(f"{label}:")[1].split()[0]


async def cli(data: Path, *arguments: str) -> str:
    code, out, err = await openchat(*arguments, "--data-dir", str(data))
    assert code == 0, err
    return out


@asynccontextmanager
async def administered(data: Path, **more: Any) -> AsyncIterator[tuple[RunningStack, httpx.AsyncClient]]:
    """A stack, and a client with its admin key."""
    code, out, _ = await openchat("key", "--admin")
    assert code == 0
    admin = value_of(out, "shown once")
    digest = value_of(out, "OPENCHAT_ADMIN_KEYS")
    headers = {"authorization": f"Bearer {admin}"}
    async with (
        running(data, "--engine", "synthetic", admin_keys=digest, **more) as stack,
        httpx.AsyncClient(base_url=stack.url(), headers=headers, timeout=30) as client,
    ):
        yield stack, client
        assert admin not in stack.text


async def new_key(client: httpx.AsyncClient, tenant: str, **more: Any) -> dict[str, Any]:
    await client.post("/admin/tenants", json={"name": tenant})
    answer = await client.post("/admin/keys", json={"tenant": tenant, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(kind: type[openai.APIStatusError], code: str) -> Any:
    return pytest.raises(kind, check=lambda exc: exc.code == code)  # type: ignore[attr-defined]


async def test_keys_made_on_the_command_line_open_and_close_a_running_stack(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running(data, "--engine", "synthetic", gateways=2) as stack:
        assert [model.id async for model in stack.client().models.list()] == ["synthetic"]
        await cli(data, "tenants", "create", "alpha", "--retention-days", "7")
        assert "7 days" in await cli(data, "tenants", "list")
        made = await cli(data, "keys", "create", "alpha", "--name", "laptop")
        key, key_id = value_of(made, "shown once"), value_of(made, "id")
        first, second = stack.client(1, key=key), stack.client(2, key=key)
        created = await first.responses.create(model="synthetic", input="hi", max_output_tokens=2)
        assert (await second.responses.retrieve(created.id)).output_text == " t0 t1"

        async def is_closed_to_others() -> bool:
            try:
                await stack.client(2).responses.retrieve(created.id)
            except openai.AuthenticationError:
                return True
            except openai.NotFoundError:  # still open, but this is not the default tenant's
                return False
            raise AssertionError("the default tenant has alpha's response")

        await until(is_closed_to_others, timeout_s=5)
        rotated = value_of(await cli(data, "keys", "rotate", key_id, "--grace", "60"), "shown once")
        assert (await stack.client(2, key=rotated).responses.retrieve(created.id)).id == created.id
        await cli(data, "keys", "revoke", key_id)
        revoked_at = time.monotonic()

        async def is_closed() -> bool:
            try:
                await second.models.list()
            except openai.AuthenticationError:
                return True
            return False

        await until(is_closed)
        assert time.monotonic() - revoked_at < 1
        shown = await cli(data, "keys", "list", "alpha")
        assert "laptop" in shown
        assert "revoked" in shown
        assert "active" in shown
        assert key not in stack.text + shown
        assert rotated not in stack.text + shown
        await cli(data, "tenants", "disable", "alpha")
        with pytest.raises(openai.AuthenticationError):
            await stack.client(1, key="oc-other").models.list()
        code, _, err = await openchat("keys", "create", "nobody", "--data-dir", str(data))
        assert (code, "no tenant 'nobody'" in err) == (1, True)
        code, _, err = await openchat("keys", "revoke", "key_x", "--data-dir", str(data))
        assert (code, "no key" in err) == (1, True)


async def test_an_administrator_makes_keys_over_http_and_the_audit_tells(tmp_path: Path) -> None:
    async with administered(tmp_path / "data") as (stack, client):
        with pytest.raises(openai.AuthenticationError):
            await stack.client().models.list()  # an admin key alone closes the door to all without one
        made = await new_key(client, "alpha", name="ci", scopes=["read"])
        assert made["effective"]
        assert made["state"] == "active"
        assert [model.id async for model in stack.client(key=made["key"]).models.list()] == ["synthetic"]
        with refused(openai.PermissionDeniedError, "insufficient_permissions"):
            await stack.client(key=made["key"]).responses.create(model="synthetic", input="hi")
        assert (await client.post("/admin/tenants", json={"name": "alpha"})).status_code == 409
        listed = (await client.get("/admin/keys", params={"tenant": "alpha"})).json()["data"]
        assert [one["id"] for one in listed] == [made["id"]]
        assert "key" not in listed[0]
        rotated = (await client.post(f"/admin/keys/{made['id']}/rotate", json={"grace_s": 0})).json()
        assert rotated["scopes"] == ["read"]
        assert (await client.get(f"/admin/keys/{made['id']}")).json()["rotated_to"] == rotated["id"]
        assert (await client.post(f"/admin/keys/{rotated['id']}/revoke")).json()["state"] == "revoked"
        assert (await client.post(f"/admin/keys/{rotated['id']}/rotate")).status_code == 409
        changed = await client.post("/admin/tenants/alpha", json={"retention_days": 3, "metadata": {"plan": "x"}})
        assert (changed.json()["retention_days"], changed.json()["metadata"]) == (3, {"plan": "x"})
        assert (await client.post("/admin/tenants/alpha", json={"retention_days": None})).json()["metadata"] == {
            "plan": "x"
        }
        page = (await client.get("/admin/audit", params={"limit": "3"})).json()
        rows = page["data"]
        assert page["has_more"]
        assert [row["action"] for row in rows] == ["tenant.update", "tenant.update", "key.revoke"]
        assert all(row["actor"].startswith("admin:") for row in rows)
        older = (await client.get("/admin/audit", params={"before": rows[-1]["id"]})).json()["data"]
        assert [row["action"] for row in older] == ["key.rotate", "key.create", "tenant.create"]


SOME_ID = "resp_" + "0" * 32
WAYS: dict[str, list[tuple[str, str]]] = {
    "responses": [
        ("POST", "/v1/responses"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", f"/v1/responses/{SOME_ID}/cancel"),
        ("DELETE", f"/v1/responses/{SOME_ID}"),
    ],
    "embeddings": [("POST", "/v1/embeddings")],
    "read": [("GET", "/v1/models"), ("GET", f"/v1/responses/{SOME_ID}"), ("GET", f"/v1/chat/completions/{SOME_ID}")],
    "usage": [("GET", "/v1/usage")],
}


async def test_a_scope_opens_its_ways_and_no_other(tmp_path: Path) -> None:
    async with administered(tmp_path / "data") as (stack, client):
        for scope in WAYS:
            key = (await new_key(client, "alpha", scopes=[scope]))["key"]
            headers = {"authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(base_url=stack.url(), headers=headers) as own:
                for other, ways in WAYS.items():
                    for method, path in ways:
                        answer = await own.request(method, path, json=None if method == "GET" else {})
                        expected = {200, 400, 404} if other == scope else {403}
                        assert answer.status_code in expected, (scope, method, path, answer.text)


async def test_nobody_but_an_administrator_comes_in(tmp_path: Path) -> None:
    async with administered(tmp_path / "data") as (stack, client):
        key = (await new_key(client, "alpha"))["key"]
        for headers in ({}, {"authorization": f"Bearer {key}"}, {"authorization": "Basic eDp5"}):
            async with httpx.AsyncClient(base_url=stack.url(), headers=headers) as other:
                for path in ("tenants", "tenants/alpha", "keys", "usage", "audit", f"keys/key_{'0' * 32}"):
                    assert (await other.get(f"/admin/{path}")).status_code == 401
                for path in ("tenants", "tenants/alpha", "keys", f"keys/{'0' * 32}/revoke", f"keys/{'0' * 32}/rotate"):
                    assert (await other.post(f"/admin/{path}", json={})).status_code == 401
        assert (await client.get("/v1/models")).status_code == 401  # an admin key is no tenant's key


async def test_usage_and_cost_are_told_by_key_and_model_to_their_tenant_alone(tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text('[[models]]\nname = "synthetic"\nengine = "synthetic"\nprices = {input = 1.0, output = 4.0}\n')
    async with administered(tmp_path / "data", models_file=str(models)) as (stack, client):
        alpha, beta = await new_key(client, "alpha"), await new_key(client, "beta")
        for made, count in ((alpha, 2), (beta, 1)):
            for _ in range(count):
                await stack.client(key=made["key"]).responses.create(model="synthetic", input="hi", max_output_tokens=5)

        async def usage(who: httpx.AsyncClient, path: str, **params: str) -> list[dict[str, Any]]:
            answer = await who.get(path, params=params)
            assert answer.status_code == 200, answer.text
            found: list[dict[str, Any]] = answer.json()["data"]
            return found

        headers = {"authorization": f"Bearer {alpha['key']}"}
        async with httpx.AsyncClient(base_url=stack.url(), headers=headers) as own:

            async def mine() -> dict[str, Any] | None:
                rows = await usage(own, "/v1/usage", group_by="model,key")
                return rows[0] if rows and rows[0]["requests"] == 2 else None

            row = await until(mine)
            assert (row["model"], row["key"], row["output_tokens"]) == ("synthetic", alpha["id"], 10)
            assert row["cost"] == pytest.approx((row["input_tokens"] + 4 * 10) / 1e6)
            (long_ago,) = await usage(own, "/v1/usage", start="2020-01-01", end="2020-02-01")
            assert long_ago["requests"] == 0
            for params in ({"group_by": "tenant"}, {"tenant": "beta"}, {"start": "x"}, {"start": "2999-01-01"}):
                assert (await own.get("/v1/usage", params=params)).status_code == 400
        rows = await until(lambda: usage(client, "/admin/usage", group_by="tenant"))
        assert {row["tenant"]: row["requests"] for row in rows}["alpha"] == 2
        assert [row["requests"] for row in await usage(client, "/admin/usage", tenant="alpha")] == [2]


OUTAGE_S = float(os.environ.get("TEST_OUTAGE_S", "0"))
"""How long requests go on without the database; at least once."""


@pytest.mark.timeout(180 + OUTAGE_S)
async def test_with_the_database_stopped_keys_work_on_and_nothing_is_lost(
    tmp_path: Path, own_server: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    own_server.start()
    monkeypatch.setenv("OPENCHAT_DATABASE_URL", await own_server.database())
    async with running(data, "--engine", "synthetic", gateways=2, synthetic_tokens_per_second="500") as stack:
        await cli(data, "tenants", "create", "alpha")
        key = value_of(await cli(data, "keys", "create", "alpha"), "shown once")
        own_server.stop()
        clients = [stack.client(gateway, key=key) for gateway in (1, 2)]
        created: list[Any] = []
        over_at = time.monotonic() + OUTAGE_S
        while not created or time.monotonic() < over_at:
            asked = [
                client.responses.create(model="synthetic", input="hi", max_output_tokens=200)
                for client in clients
                for _ in range(20)
            ]
            created += await asyncio.gather(*asked)
        assert {one.output_text for one in created} == {"".join(f" t{i}" for i in range(200))}
        with pytest.raises(openai.AuthenticationError):
            await stack.client(2, key="oc-wrong").models.list()
        code, _, err = await openchat("keys", "create", "alpha", "--data-dir", str(data))
        assert (code, "archive" in err) == (1, True)
        own_server.start()
        async with httpx.AsyncClient(base_url=stack.url(), headers={"authorization": f"Bearer {key}"}) as client:

            async def requests() -> bool:
                answer = await client.get("/v1/usage")
                return answer.status_code == 200 and answer.json()["data"][0]["requests"] == len(created)

            await until(requests, timeout_s=60, what="everything to be archived, once")
