"""What the three uses of a text must not share, and how much of it is read."""

import pytest
import torch

from sentinel.data.loaders.splits import Packing, pack_splits, split_training
from sentinel.errors import DataInvalid
from tests.unit.data.words import word_tokenizer

TOKENIZER = word_tokenizer(eos_token="<end>")


def pack(training, evaluation, *, length=2, training_limit=None, evaluation_limit=100):
    packing = Packing(
        sequence_length=length, training_limit=training_limit, evaluation_limit=evaluation_limit, isolated=False
    )
    return pack_splits(training, evaluation, TOKENIZER, packing)


def test_evaluation_leaves_out_what_training_read():
    windows = pack(["a", "b"], ["b", "c", "a", "b c c"])
    assert windows.training.tolist() == [[0, 1], [0, 2]]
    assert windows.evaluation.tolist() == [[0, 3], [0, 2], [3, 3]]
    assert windows.left_out == 2


def test_only_documents_that_were_read_count():
    def training():
        yield from ["a"] * 64
        yield "b"
        raise AssertionError("read too far")

    def evaluation():
        yield from ["a", *["b"] * 64]
        raise AssertionError("read too far")

    windows = pack(training(), evaluation(), training_limit=1, evaluation_limit=1)
    assert (windows.training.tolist(), windows.evaluation.tolist(), windows.left_out) == ([[0, 1]], [[0, 2]], 1)


def test_what_is_left_too_short_is_said_with_its_cause():
    with pytest.raises(DataInvalid, match=r"evaluation text has 0 tokens.* 2 of its documents were left out"):
        pack(["a", "b"], ["b", "a"])
    with pytest.raises(DataInvalid, match=r"^The evaluation text has 2 tokens[^.]*\.$"):
        pack(["a b c"], ["b"], length=4)
    with pytest.raises(DataInvalid, match="The training text has 2 tokens"):
        pack(["a"], ["b b b"], length=4)


def test_calibration_is_spread_over_the_text_and_healing_gets_the_rest():
    windows = torch.arange(10).view(5, 2)
    calibration, held_out, healing = split_training(windows, calibration=3, held_out=0, heals=True)
    assert len(held_out) == 0
    assert (calibration.tolist(), healing.tolist()) == ([[0, 1], [2, 3], [6, 7]], [[4, 5], [8, 9]])


def test_without_a_window_to_heal_on_the_counts_are_said():
    windows = torch.zeros(3, 16, dtype=torch.int64)
    with pytest.raises(DataInvalid, match=r"3 window.* of 16 .* 3, which leaves none to heal on") as refused:
        split_training(windows, calibration=3, held_out=0, heals=True)
    assert "prune.calibration_sequences" in refused.value.instance_next_step
    assert len(split_training(windows, calibration=5, held_out=0, heals=False)[0]) == 3


def test_what_healing_is_measured_by_is_nobody_elses():
    windows = torch.arange(20).view(10, 2)
    calibration, held_out, healing = split_training(windows, calibration=3, held_out=2, heals=True)
    assert torch.equal(torch.cat([calibration, held_out, healing])[:, 0].sort().values, windows[:, 0])
    assert (held_out[:, 0] // 2).tolist() == [0, 4]
    assert [len(calibration), len(held_out), len(healing)] == [3, 2, 5]
    with pytest.raises(DataInvalid, match=r"10 window\(s\).*4, and healing keeps 6 to be measured by"):
        split_training(windows, calibration=4, held_out=6, heals=True)
