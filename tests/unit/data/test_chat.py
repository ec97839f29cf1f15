"""Conversations from files, written out by a chat template."""

import json

import datasets
import pytest

from sentinel.data.loaders.chat import Texts
from sentinel.data.loaders.documents import load_documents
from sentinel.data.loaders.windows import pack_windows
from sentinel.data_spec import PathData
from sentinel.errors import DataInvalid, TokenizerInvalid
from tests.unit.data.words import word_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ m.role }} {{ m.content }} {% endfor %}"
)
CONVERSATIONS = [
    [{"role": "a", "content": "b c"}, {"role": "b", "content": "a"}],
    [{"role": "a", "content": "c", "name": "ann"}],
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def talker(template=TEMPLATE):
    tokenizer = word_tokenizer(bos_token="<end>", eos_token="<end>")
    tokenizer.chat_template = template
    return tokenizer


def load(path, **settings):
    return load_documents(PathData(train=str(path), column="messages", chat=True, **settings), allowed_roots=None)


def write(tmp_path, rows, suffix="jsonl"):
    path = tmp_path / f"chats.{suffix}"
    if suffix == "parquet":
        datasets.Dataset.from_list([{"messages": row} for row in rows]).to_parquet(path)
    else:
        path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_conversations_become_documents_with_one_start_token_each(tmp_path, suffix):
    documents = load(write(tmp_path, [*CONVERSATIONS, [], CONVERSATIONS[0]], suffix), held_out=0.25)
    texts = Texts(documents.train, talker())
    assert list(texts) == ["a b c b a ", "a c "]
    windows = pack_windows(texts, talker(), sequence_length=9, limit=None)
    assert windows.tolist() == [[0, 1, 2, 3, 2, 1, 0, 1, 3]]
    assert list(Texts(documents.evaluation, talker())) == ["a b c b a "]


def test_a_tokenizer_without_a_template_is_refused(tmp_path):
    documents = load(write(tmp_path, CONVERSATIONS * 6))
    with pytest.raises(TokenizerInvalid, match="no chat template"):
        list(Texts(documents.train, talker(None)))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (TEMPLATE, "no system"),
        ("{{ messages[0].content + 1 }}", "can only concatenate"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_a_conversation_that_the_template_refuses_is_said(tmp_path, template, message):
    documents = load(write(tmp_path, [[{"role": "system", "content": "a"}]] * 10))
    with pytest.raises(DataInvalid, match=f"refuses a conversation: {message}"):
        list(Texts(documents.train, talker(template)))


@pytest.mark.parametrize(
    ("format_", "date"), [("%d %b %Y", "26 Jul 2024"), ("%B %d, %y", "July 26, 24"), ("%Y-%m-%d", "2024-07-26")]
)
def test_the_same_conversation_is_the_same_text_on_any_day(tmp_path, format_, date):
    documents = load(write(tmp_path, CONVERSATIONS * 6))
    clock = "{% if strftime_now is defined %}{{ strftime_now(" + repr(format_) + ") }} {% endif %}"
    assert next(iter(Texts(documents.train, talker(clock + TEMPLATE)))) == f"{date} <end>a b c b a "


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a text", "holds str, not a conversation"),
        ([{"from": "a", "value": "b"}], "holds a list of {from, value}, not a conversation"),
        ([{"role": "a", "content": None}], "holds a list of {role, content}, not a conversation"),
        (["a", "b"], "holds list, not a conversation"),
    ],
)
def test_what_is_no_conversation_is_said(tmp_path, row, message):
    with pytest.raises(DataInvalid, match=message):
        list(load(write(tmp_path, [row] * 10)).train)


def test_conversations_are_no_text(tmp_path):
    source = PathData(train=str(write(tmp_path, CONVERSATIONS * 6)), column="messages")
    with pytest.raises(DataInvalid, match=r"holds a list of \{role, content.*\}, not text"):
        list(load_documents(source, allowed_roots=None).train)
