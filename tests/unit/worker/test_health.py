import pytest

from api.settings import Settings
from api.store.database import upgrade
from worker.health import complaint
from worker.scratch import Scratch


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path)


@pytest.fixture
def working(settings):
    scratch = Scratch(settings.home / "scratch")
    yield
    scratch.close()


def test_without_a_worker(settings):
    assert complaint(settings) == "No worker runs here."


@pytest.mark.usefixtures("working")
def test_with_a_worker_and_a_current_database(settings):
    upgrade(settings.database_url)
    assert complaint(settings) is None


@pytest.mark.usefixtures("working")
def test_with_a_database_of_another_version(settings):
    assert "migrations" in complaint(settings)


@pytest.mark.usefixtures("working")
def test_with_a_database_that_does_not_answer(settings):
    gone = settings.model_copy(update={"database_url": "postgresql+psycopg://nobody@127.0.0.1:9/none"})
    assert "does not answer" in complaint(gone)
