import pytest
import torch

from sentinel.data.loaders.windows import pack_windows, token_batches
from sentinel.errors import DataInvalid, TokenizerInvalid
from tests.unit.data.words import word_tokenizer

TOKENIZER = word_tokenizer(eos_token="<end>")


def test_documents_follow_each_other_after_a_start_token():
    windows = pack_windows(["a b", "c", "b b b"], TOKENIZER, sequence_length=4, limit=None)
    assert windows.tolist() == [[0, 1, 2, 0], [3, 0, 2, 2]]
    assert windows.dtype == torch.int64


def test_the_limit_stops_the_reading():
    def documents():
        yield from ["a b c"] * 600
        raise AssertionError("read too far")

    assert pack_windows(documents(), TOKENIZER, sequence_length=4, limit=2).shape == (2, 4)


def test_a_limit_beyond_everything_takes_all():
    assert pack_windows(["a b c"] * 3, TOKENIZER, sequence_length=4, limit=2**62).shape == (3, 4)


def test_text_shorter_than_a_window_is_refused():
    with pytest.raises(DataInvalid, match="5 tokens, fewer than one window"):
        pack_windows(["a", "b c"], TOKENIZER, sequence_length=8, limit=None)


def test_a_tokenizer_without_a_start_token_is_refused():
    with pytest.raises(TokenizerInvalid, match="BOS"):
        pack_windows(["a"], word_tokenizer(), sequence_length=2, limit=None)


def test_documents_that_cannot_be_told_apart_are_refused_where_they_must_be():
    documents = ["a b", "c <end> a"]
    assert pack_windows(documents, TOKENIZER, sequence_length=7, limit=None).tolist() == [[0, 1, 2, 0, 3, 0, 1]]
    with pytest.raises(DataInvalid, match="starts documents, '<end>'"):
        pack_windows(documents, TOKENIZER, sequence_length=7, limit=None, isolated=True)
    assert len(pack_windows(documents[:1] * 7, TOKENIZER, sequence_length=7, limit=None, isolated=True)) == 3


def test_batches_hold_every_window_once_in_order():
    windows = torch.arange(10 * 1000).view(10, 1000)
    batches = list(token_batches(windows))
    assert torch.equal(torch.cat(batches), windows)
    assert all(batch.numel() <= 4096 for batch in batches)
    assert len(list(token_batches(torch.zeros(2, 9000)))) == 2
