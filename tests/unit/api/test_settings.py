"""Settings come from the environment, follow from each other, and never change."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from api.settings import Settings
from api.store.database import upgrade


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    """No settings but those a test makes, in a folder of its own."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SENTINEL_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


def test_everything_on_disk_is_under_home(tmp_path):
    settings = Settings()
    assert settings.home == tmp_path / ".sentinel"
    assert settings.database_url == f"sqlite:///{tmp_path}/.sentinel/sentinel.db"
    assert settings.storage_uri == f"file://{tmp_path}/.sentinel/storage"
    assert settings.cache == tmp_path / ".sentinel" / "cache"


@pytest.mark.parametrize("name", ["with space", "per%20cent", "100%", "quest?ion", "ha#sh", "ünï"])
def test_the_database_is_under_a_home_of_any_name(tmp_path, name):
    (home := tmp_path / name).mkdir()
    upgrade(Settings(home=home).database_url)
    assert [path.name for path in home.iterdir()] == ["sentinel.db"]


def test_the_environment_decides(monkeypatch):
    for name, value in {"HOME": "/srv/s", "DATABASE_URL": "postgresql://db/s", "LEASE_S": "12", "PORT": "0"}.items():
        monkeypatch.setenv(f"SENTINEL_{name}", value)
    settings = Settings()
    assert (settings.database_url, settings.storage_uri) == ("postgresql://db/s", "file:///srv/s/storage")
    assert (settings.lease_s, settings.heartbeat_s, settings.port) == (12, 2, 0)


def test_an_empty_variable_is_not_set(monkeypatch):
    monkeypatch.setenv("SENTINEL_DATABASE_URL", "")
    assert Settings().database_url.startswith("sqlite:///")


def test_a_secret_is_a_file_named_like_its_variable_which_wins(monkeypatch, tmp_path):
    (tmp_path / "sentinel_database_url").write_text("postgresql://db/secret\n")
    (tmp_path / "postgres_password").write_text("not ours")
    assert Settings(_secrets_dir=tmp_path).database_url == "postgresql://db/secret"
    monkeypatch.setenv("SENTINEL_DATABASE_URL", "")
    assert Settings(_secrets_dir=tmp_path).database_url == "postgresql://db/secret"
    monkeypatch.setenv("SENTINEL_DATABASE_URL", "postgresql://db/said")
    assert Settings(_secrets_dir=tmp_path).database_url == "postgresql://db/said"


def test_model_roots_are_parted_like_path(monkeypatch, tmp_path):
    assert Settings().model_roots == []
    monkeypatch.setenv("SENTINEL_MODEL_ROOTS", "/models:data/../text:")
    assert Settings().model_roots == [Path("/models"), tmp_path / "text"]
    assert Settings(model_roots=[Path("/models")]).model_roots == [Path("/models")]


def test_allowed_hosts_are_parted_by_commas_and_checked(monkeypatch):
    assert Settings().outbound_allowed_hosts == []
    monkeypatch.setenv("SENTINEL_OUTBOUND_ALLOWED_HOSTS", "hook.corp, 10.1.0.0/16,::1,")
    assert Settings().outbound_allowed_hosts == ["hook.corp", "10.1.0.0/16", "::1"]
    for wrong in ("10.1.0.1/16", "https://hook.corp", "hook.corp:80", "*.corp", "10.0.0.0/8 hook.corp"):
        with pytest.raises(ValidationError, match="neither the name of a host"):
            Settings(outbound_allowed_hosts=wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lease_s", 0),
        ("heartbeat_s", 31),
        ("max_attempts", 0),
        ("port", 70000),
        ("rate_limit", "0/minute"),
        ("retention_days", 1e6),
        ("orphans_after_s", 1e12),
        ("uploads_abandoned_s", 1e12),
        ("unknown", 1),
    ],
)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: value})


def test_settings_never_change():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_every_setting_is_documented():
    assert all(field.description for field in Settings.model_fields.values())


def test_hosts_are_parted_by_commas_and_have_no_scheme(monkeypatch):
    assert Settings().allowed_hosts == []
    monkeypatch.setenv("SENTINEL_ALLOWED_HOSTS", "Sentinel.example, other:8443,[::1]:80,")
    assert Settings().allowed_hosts == ["sentinel.example", "other:8443", "[::1]:80"]
    for wrong in ("https://sentinel.example", "*", "a b", "a:b"):
        with pytest.raises(ValidationError, match="is no host"):
            Settings(allowed_hosts=[wrong])
