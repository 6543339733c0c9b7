"""Settings, the models file, API keys and the error tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from responses.keys import ApiKeys, admin_digests, key_digest, new_key
from schemas import errors
from schemas.error_table import errors_markdown
from schemas.errors import ModelNotFound, OpenChatError, SettingsError, all_errors
from schemas.ids import chat_id, id_from_bytes, id_to_bytes, item_id, new_response_id, parse_response_id
from schemas.models import ModelEntry, Models, load_models
from schemas.settings import Settings, effective_settings, settings_from_env, settings_markdown

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def test_the_defaults_are_the_settings_of_an_empty_environment() -> None:
    assert settings_from_env({"PATH": "x"}) == Settings()


def test_values_are_converted_and_flags_win() -> None:
    settings = settings_from_env(
        {"OPENCHAT_LEASE_MS": " 700 ", "OPENCHAT_ENGINE": "local"}, engine="synthetic", model=None
    )
    assert (settings.lease_ms, settings.engine, settings.model) == (700, "synthetic", "")
    assert settings_from_env({"OPENCHAT_UNSUPPORTED_PARAMETERS": "warn"}).unsupported_parameters == "warn"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OPENCHAT_LEASE_MSS", "1", "did you mean OPENCHAT_LEASE_MS?"),
        ("OPENCHAT_XYZZY_PLUGH_QUX", "1", "unknown setting"),
        ("OPENCHAT_LEASE_MS", "fast", "OPENCHAT_LEASE_MS"),
        ("OPENCHAT_LEASE_MS", "10", ">= 500"),
        ("OPENCHAT_ENGINE", "steam engine", "OPENCHAT_ENGINE"),
        ("OPENCHAT_LEASE_MS", "", "OPENCHAT_LEASE_MS"),
        ("OPENCHAT_UNSUPPORTED_PARAMETERS", "ignore", "OPENCHAT_UNSUPPORTED_PARAMETERS"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)):
        settings_from_env({name: value})


def test_the_documented_table_is_the_one_of_the_code() -> None:
    assert settings_markdown() in OPERATIONS.read_text(encoding="utf-8"), "run: openchat settings"


def test_the_documented_errors_are_those_of_the_code() -> None:
    documented = OPERATIONS.with_name("http.md").read_text(encoding="utf-8")
    assert errors_markdown() in documented, "print(schemas.error_table.errors_markdown())"


def test_secrets_are_masked() -> None:
    shown = dict(effective_settings(Settings(redis_url="redis://:secret@host", api_keys="a=b")))
    assert shown["OPENCHAT_REDIS_URL"] == "***"
    assert "secret" not in str(shown)


def test_without_a_file_there_is_one_model() -> None:
    assert [e.name for e in load_models(Settings()).entries] == ["smollm2-135m-instruct"]
    assert [e.name for e in load_models(Settings(engine="synthetic", model="x")).entries] == ["x"]
    [entry] = load_models(Settings(model="/models/Tiny.gguf")).entries
    assert (entry.name, entry.path) == ("Tiny", "/models/Tiny.gguf")
    with pytest.raises(SettingsError, match="GGUF"):
        load_models(Settings(model="gpt-9"))


def test_models_of_a_file_are_found_by_name_and_alias(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[[models]]\nname="a"\naliases=["b"]\nengine="synthetic"\ntakeover="fail"\n[[models]]\nname="c"\n')
    models = load_models(Settings(models_file=str(path)))
    assert models.find("b").name == "a"
    with pytest.raises(ModelNotFound, match="a, c"):
        models.find("d")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        'models = "x"',
        '[[models]]\nname=""',
        '[[models]]\nname="a"\nx=1',
        '[[models]]\nname="a"\naliases=["a"]',
    ],
)
def test_a_wrong_models_file_is_a_settings_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="models"):
        load_models(Settings(models_file=str(path)))


def test_a_missing_models_file_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"none\.toml"):
        load_models(Settings(models_file="none.toml"))


def test_a_key_opens_its_tenant_and_nothing_else_does() -> None:
    key, entry = new_key("alpha")
    other, _ = new_key("alpha")
    keys = ApiKeys(f"{entry}, beta={'0' * 64}")
    assert key not in entry
    assert keys.tenant_of(key_digest(key)) == "alpha"
    assert keys.tenant_of(key_digest(other)) is None
    assert ApiKeys("").is_empty


def test_admin_keys_are_hashes() -> None:
    assert admin_digests("") == []
    assert admin_digests(f" {'0' * 64}, {'a' * 64} ") == ["0" * 64, "a" * 64]
    for wrong in ("x", f"admin={'0' * 64}", "0" * 63):
        with pytest.raises(SettingsError, match="openchat key --admin"):
            admin_digests(wrong)


@pytest.mark.parametrize("setting", ["alpha", "alpha=xyz", f"={'0' * 64}", f"a b={'0' * 64}", f"a={'0' * 63}"])
def test_a_wrong_key_setting_says_how_to_make_one(setting: str) -> None:
    with pytest.raises(SettingsError, match="openchat key"):
        ApiKeys(setting)


def test_ids_sort_by_time_and_survive_their_forms() -> None:
    ids = [new_response_id() for _ in range(3)]
    assert (
        parse_response_id(ids[0]) == ids[0] == parse_response_id(chat_id(ids[0])) == id_from_bytes(id_to_bytes(ids[0]))
    )
    assert item_id(ids[0], 0) == f"msg_{ids[0][5:]}_0"
    assert ids[0][:13] <= ids[1][:13] <= ids[2][:13]
    assert len(set(ids)) == 3
    for text in ("", "resp_", "resp_" + "g" * 32, "resp_" + "0" * 33, "x" + ids[0], ids[0] + "\n"):
        assert parse_response_id(text) is None


def test_every_error_has_a_code_a_status_and_a_message_and_stands_in_the_tree() -> None:
    for cls in all_errors():
        assert cls().message
        assert 400 <= cls.status < 600
        assert cls.__name__ in (errors.__doc__ or "")
    codes = [cls.code for cls in all_errors() if cls is not OpenChatError and cls is not errors.RequestError]
    assert len(set(codes)) == len(codes)


def test_the_key_of_a_remote_api_comes_under_the_name_that_everybody_uses() -> None:
    assert settings_from_env({"OPENAI_API_KEY": " sk-1\n"}).openai_api_key == "sk-1"
    both = {"OPENAI_API_KEY": "sk-1", "OPENCHAT_OPENAI_API_KEY": "sk-2"}
    assert settings_from_env(both).openai_api_key == "sk-2"


def test_a_remote_model_needs_its_name() -> None:
    with pytest.raises(SettingsError, match="--model"):
        load_models(settings_from_env({}, engine="openai"))
    (entry,) = load_models(settings_from_env({}, engine="openai", model="org/name")).entries
    assert (entry.name, entry.path) == ("org/name", "")


def test_an_engine_that_loads_folders_takes_its_name_from_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only(engine: str, model: str = "") -> tuple[str, str]:
        (entry,) = load_models(Settings(engine=engine, model=model)).entries
        return entry.name, entry.path

    monkeypatch.chdir(tmp_path)
    assert only("vllm", "/models/SmolLM2-1.7B") == ("SmolLM2-1.7B", "/models/SmolLM2-1.7B")
    assert only("transformers", "organisation/name") == ("name", "organisation/name")
    with pytest.raises(SettingsError, match=r"--model .*make install-vllm"):
        only("vllm")
    (tmp_path / ".models" / "smollm2-135m").mkdir(parents=True)
    assert only("transformers") == ("smollm2-135m", ".models/smollm2-135m")
    assert only("parrot") == ("parrot", "")
    assert only("parrot", "/models/x") == ("x", "/models/x")


def test_no_two_models_or_adapters_have_one_name() -> None:
    models = Models([ModelEntry(name="a", adapters={"blue": "/blue"})])
    adapted = models.with_adapter("blue")
    assert adapted is not None
    assert adapted.name == "a"
    assert models.get("blue") is models.with_adapter("a") is None
    for other in (ModelEntry(name="blue"), ModelEntry(name="b", adapters={"blue": "/x"}), ModelEntry(name="a")):
        with pytest.raises(SettingsError, match="given twice"):
            Models([*models.entries, other])
