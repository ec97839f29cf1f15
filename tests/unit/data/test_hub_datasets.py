"""Datasets over the hub protocol: whole or streamed, each read by a fresh process from an endpoint that runs here."""

import json

import pytest

from tests.hub_endpoint import serving

READ = """
import itertools, json, sys
from sentinel.data.loaders.documents import load_documents
from sentinel.errors import SentinelError
from sentinel.spec import HubData

outcomes = []
for section in json.loads(sys.argv[1]):
    try:
        documents = load_documents(HubData(**section), allowed_roots=None)
        outcomes.append([list(itertools.islice(some, 3)) for some in (documents.train, documents.evaluation)])
    except SentinelError as error:
        outcomes.append([error.code, error.message])
print(json.dumps(outcomes))
"""
TEXTS = [f"Story {i}." for i in range(10)]


@pytest.fixture
def hub(tmp_path):
    with serving(tmp_path / "hub") as hub:
        folder = hub.root / "datasets" / "org" / "stories"
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS))
        (folder / "validation.jsonl").write_text('{"text": "Unseen.", "n": 1}\n')
        hub.folder = folder
        yield hub


def read(hub, *sections, **environment):
    sections = [{"id": "org/stories", **section} for section in sections]
    return hub.run(READ, json.dumps(sections), home=hub.root.parent / "home", **environment)


def test_a_dataset_is_read_whole_or_streamed(hub):
    expected = [TEXTS[:3], ["Unseen."]]
    assert read(hub, {"streaming": True}) == [expected]
    assert not list((hub.root.parent / "home").rglob("*.arrow"))
    sliced = {"train": "train[:50%]", "evaluation": "train[50%:]"}
    assert read(hub, {}, {"splits": sliced}) == [expected, [TEXTS[:3], TEXTS[5:8]]]


def test_a_stream_is_read_no_further_than_it_must(hub):
    for part in range(2):
        lines = "".join(json.dumps({"text": f"{part} {i}", "n": 1}) + "\n" for i in range(10))
        (hub.folder / f"train-0000{part}-of-00002.jsonl").write_text(lines)
    (hub.folder / "train.jsonl").unlink()
    assert read(hub, {"streaming": True}) == [[["0 0", "0 1", "0 2"], ["Unseen."]]]
    assert [path for path in hub.requests if path.endswith("train-00000-of-00002.jsonl")]
    assert not [path for path in hub.requests if path.endswith("train-00001-of-00002.jsonl")]


def test_what_is_wrong_is_said(hub):
    wrong = ({"column": "body"}, {"column": "n"}, {"splits": {"evaluation": "test"}}, {"id": "org/absent"})
    found = read(hub, *[{**section, "streaming": streaming} for streaming in (False, True) for section in wrong])
    for some in (found[:4], found[4:]):
        assert [code for code, _ in some] == ["data_invalid"] * 4
        assert "no column 'body'; it has text, n" in some[0][1]
        assert "Row 0 of column 'n' of split 'train' of dataset 'org/stories' holds int, not text" in some[1][1]
        assert "'test'" in some[2][1]
        assert "org/absent" in some[3][1]


def test_a_hub_that_does_not_answer_is_not_the_users_fault(hub):
    ((code, message),) = read(hub, {}, HF_HUB_OFFLINE="1")
    assert code == "hub_unreachable"
    assert "org/stories" in message
