"""Bodies of the admin endpoints."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas.accounts import SCOPES, parse_key_id, shown_key_id
from schemas.admin import NewKey, NewTenant, Rotation, TenantChanges, parse_admin_body
from schemas.errors import InvalidRequest


def test_what_is_not_given_has_its_default_and_changes_nothing() -> None:
    assert parse_admin_body(b'{"tenant":"a"}', NewKey).scopes == SCOPES
    assert parse_admin_body(b"", Rotation).grace_s == 3600
    changes = parse_admin_body(b'{"retention_days":null}', TenantChanges)
    assert changes.retention_days is None
    assert changes.metadata is msgspec.UNSET


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        (NewTenant, {"name": "a b"}, "name"),
        (NewTenant, {}, "name"),
        (NewTenant, {"name": "b", "colour": 1}, None),
        (NewTenant, {"name": "b", "retention_days": 0}, "retention_days"),
        (NewKey, {"tenant": "a", "scopes": []}, "scopes"),
        (NewKey, {"tenant": "a", "scopes": ["all"]}, "scopes[0]"),
        (NewKey, {"tenant": "a", "limits": {"x": "y" * 5000}}, "limits"),
        (Rotation, {"grace_s": -1}, "grace_s"),
        (NewTenant, [], None),
    ],
)
def test_a_wrong_body_is_an_error_that_names_the_field(kind: Any, body: Any, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_admin_body(msgspec.json.encode(body), kind)
    assert caught.value.param == param


@pytest.mark.parametrize("raw", [b"{", b"\xff", b"[" * 10_000])
def test_what_is_no_json_is_an_error(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_admin_body(raw, NewTenant)


def test_the_id_of_a_key_is_known_with_and_without_its_prefix() -> None:
    digits = "0" * 31 + "a"
    assert parse_key_id(shown_key_id(digits)) == parse_key_id(digits) == digits
    assert shown_key_id("") == ""
    for text in ("", "key_", digits + "0", "key_" + "g" * 32, digits + "\n"):
        assert parse_key_id(text) is None
