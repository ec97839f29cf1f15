import stat

import pytest

from api.settings import Settings
from api.store.database import create_database, upgrade
from api.store.keys import authenticate
from worker.embedded import EmbeddedService, as_environment, ensure_key, url_of


def test_children_read_the_same_settings(tmp_path, monkeypatch):
    settings = Settings(
        home=tmp_path / "home", model_roots=[tmp_path, tmp_path / "b"], lease_s=7, port=1234, allowed_hosts=["a", "b:1"]
    )
    for name, text in as_environment(settings).items():
        monkeypatch.setenv(name, text)
    assert Settings() == settings


def test_the_key_is_made_once_works_and_only_its_owner_can_read_it(tmp_path):
    url = f"sqlite:///{tmp_path / 'sentinel.db'}"
    upgrade(url)
    path = tmp_path / "api_key"
    key = ensure_key(url, path)
    assert ensure_key(url, path) == key == path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    database = create_database(url)
    with database.reading() as session:
        assert authenticate(session, key).scopes == ["read", "submit", "admin"]
    database.close()


def test_a_key_of_another_database_is_replaced(tmp_path):
    urls = [f"sqlite:///{tmp_path / name}" for name in ("a.db", "b.db")]
    for url in urls:
        upgrade(url)
    first, second = (ensure_key(url, tmp_path / "api_key") for url in urls)
    assert first != second


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("gpu.example.org", "http://gpu.example.org:80"),
    ],
)
def test_the_api_is_reached_by_a_name_that_it_answers_to(host, url):
    assert url_of(host, 80) == url


def test_a_service_that_listens_everywhere_is_called_by_loopback_s_name(tmp_path):
    service = EmbeddedService(Settings(home=tmp_path, host="0.0.0.0", port=0))
    assert service.base_url.startswith("http://127.0.0.1:")
