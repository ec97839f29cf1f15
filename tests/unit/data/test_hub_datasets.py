"""Datasets over the hub protocol: whole or streamed, read by a process of its own from an endpoint that runs here."""

import gzip
import json

import pytest

from tests.hub_endpoint import serving

READ = """
import itertools
from sentinel.data.loaders.documents import load_documents
from sentinel.errors import SentinelError
from sentinel.data_spec import HubData

def outcome(section):
    try:
        documents = load_documents(HubData(**section), allowed_roots=None)
        return [list(itertools.islice(some, 3)) for some in (documents.train, documents.evaluation)]
    except SentinelError as error:
        return error.code, error.message

def answer(*sections):
    return [outcome(section) for section in sections]
"""
TEXTS = [f"Story {i}." for i in range(10)]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("datasets") / "hub") as hub:
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def read(hub, home):
    with hub.client(READ, home=home) as read:
        yield read


@pytest.fixture
def dataset(hub, request):
    """A dataset of the test's own: its id and its folder."""
    name = f"org/{request.node.name}"
    folder = hub.root / "datasets" / name
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS))
    (folder / "validation.jsonl").write_text('{"text": "Unseen.", "n": 1}\n')
    return name, folder


def test_a_dataset_is_read_whole_or_streamed(read, dataset, home):
    name, _ = dataset
    expected, before = [TEXTS[:3], ["Unseen."]], set(home.rglob("*.arrow"))
    assert read({"id": name, "streaming": True}) == [expected]
    assert set(home.rglob("*.arrow")) == before
    sliced = {"train": "train[:50%]", "evaluation": "train[50%:]"}
    assert read({"id": name}, {"id": name, "splits": sliced}) == [expected, [TEXTS[:3], TEXTS[5:8]]]
    assert set(home.rglob("*.arrow")) > before


def test_a_stream_is_read_no_further_than_it_must(hub, read, dataset):
    name, folder = dataset
    for part in range(2):
        lines = "".join(json.dumps({"text": f"{part} {i}", "n": 1}) + "\n" for i in range(10))
        (folder / f"train-0000{part}-of-00002.jsonl").write_text(lines)
    (folder / "train.jsonl").unlink()
    assert read({"id": name, "streaming": True}) == [[["0 0", "0 1", "0 2"], ["Unseen."]]]
    assert [path for path in hub.requests if path.endswith("train-00000-of-00002.jsonl")]
    assert not [path for path in hub.requests if path.endswith("train-00001-of-00002.jsonl")]


def test_what_is_wrong_is_said(read, dataset):
    name, _ = dataset
    wrong = ({"column": "body"}, {"column": "n"}, {"splits": {"evaluation": "test"}}, {"id": "org/absent"})
    found = read(*[{"id": name, **section, "streaming": streaming} for streaming in (False, True) for section in wrong])
    for some in (found[:4], found[4:]):
        assert [code for code, _ in some] == ["data_invalid"] * 4
        assert "no column 'body'; it has text, n" in some[0][1]
        assert f"Row 0 of column 'n' of split 'train' of dataset '{name}' holds int, not text" in some[1][1]
        assert "'test'" in some[2][1]
        assert "org/absent" in some[3][1]


def test_a_damaged_archive_is_said(read, dataset):
    name, folder = dataset
    (folder / "train.jsonl").rename(folder / "train.jsonl.gz")
    (folder / "train.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 99)[:20])
    for code, message in read({"id": name}, {"id": name, "streaming": True}):
        assert code == "data_invalid"
        assert "Compressed file ended" in message


def test_a_dataset_card_that_cannot_be_read_is_said(read, dataset):
    name, folder = dataset
    (folder / "README.md").write_text("---\nconfigs: [\n---\n")
    ((code, message),) = read({"id": name})
    assert code == "data_invalid"
    assert "while parsing" in message


def test_a_hub_that_does_not_answer_is_not_the_users_fault(hub, tmp_path, dataset):
    name, _ = dataset
    with hub.client(READ, home=tmp_path, HF_HUB_OFFLINE="1") as read_offline:
        ((code, message),) = read_offline({"id": name})
    assert code == "hub_unreachable"
    assert name in message
