"""Probes are what they say, and a model that copies perfectly scores perfectly on them."""

import math
from types import SimpleNamespace

import pytest
import torch

from sentinel.errors import DataInvalid, LossNotFinite
from sentinel.models.probes import COPY_TOKENS, PAIRS, Probe, copying, draw_probes, score

START, SPECIAL, VOCABULARY = 0, 1, 50
SURE = 30.0


class Copier:
    """Foretells what followed the last token when it stood before; knows nothing else."""

    device = torch.device("cpu")

    def __call__(self, input_ids, use_cache):
        logits = torch.zeros(*input_ids.shape, VOCABULARY)
        for row, tokens in enumerate(input_ids.tolist()):
            for place, token in enumerate(tokens):
                if token in tokens[:place]:
                    before = place - 1 - tokens[:place][::-1].index(token)
                    logits[row, place, tokens[before + 1]] = SURE
        return SimpleNamespace(logits=logits)


def windows(count=12, length=40):
    tokens = torch.randint(2, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = START
    tokens[:, 20] = START
    tokens[0, 5] = SPECIAL
    return tokens


def draw(tokens=None, *, count=16, seed=7):
    tokens = windows() if tokens is None else tokens
    probes = draw_probes(tokens, start=START, special=[SPECIAL], count=count, seed=seed)
    return {probe.name: probe for probe in probes}


@pytest.fixture(scope="module")
def probes():
    return draw()


def test_a_seed_decides_every_probe(probes):
    again, other = draw(), draw(seed=8)
    for name, probe in probes.items():
        assert torch.equal(probe.sequences, again[name].sequences)
        assert torch.equal(probe.controls, again[name].controls)
    assert not torch.equal(probes["recall"].sequences, other["recall"].sequences)


def test_all_tokens_are_the_text_s_own(probes):
    for probe in probes.values():
        assert probe.sequences[:, 1:].ne(SPECIAL).all() or probe.name == "copying"
        assert torch.isin(probe.sequences, windows()).all()
        assert probe.sequences.shape[1] <= windows().shape[1]


def test_repetition_is_random_tokens_twice(probes):
    probe = probes["repetition"]
    size = min(COPY_TOKENS, 39 // 2)
    first, second = probe.sequences[:, 1 : size + 1], probe.sequences[:, size + 1 :]
    assert torch.equal(first, second)
    assert all(len(set(row)) == size for row in first.tolist())
    assert torch.equal(probe.controls[:, size + 1 :], second)
    assert not torch.equal(probe.controls[:, 1 : size + 1], first)
    # The first token of the second copy could be anything.
    assert probe.answers.sum(1).eq(size - 1).all()
    assert not probe.answers[:, : size + 2].any()


def test_recall_asks_for_the_second_of_one_pair(probes):
    probe = probes["recall"]
    for told, control in zip(probe.sequences.tolist(), probe.controls.tolist(), strict=True):
        pairs = dict(zip(told[1 : 2 * PAIRS : 2], told[2 : 2 * PAIRS + 1 : 2], strict=True))
        assert len({*pairs, *pairs.values()}) == 2 * PAIRS
        assert pairs[told[-2]] == told[-1]
        assert control[-2:] == told[-2:]
        assert told[-1] not in control[:-1]
        assert sum(a != b for a, b in zip(told, control, strict=True)) == 1


def test_copying_pairs_the_first_and_the_second_of_a_rare_token_in_one_document():
    text = torch.tensor(
        [
            [START, 9, 3, 4, 3, 9, START, 9, 3, 3],  # a 9 again behind it, but in another document the third time
            [9, 3, 4, 3, 9, 3, 4, 3, 9, 3],  # its first token is foretold by nothing
            [START, 8, 4, 3, 4, 3, 4, 3, 4, 3],
        ]
    )
    probe = copying(text, {9, 8}, start=START)
    assert torch.equal(probe.sequences, text[:2])
    assert probe.control_answers.nonzero().tolist() == [[0, 1], [1, 4]]
    assert probe.answers.nonzero().tolist() == [[0, 5], [1, 8]]


def test_what_copies_perfectly_scores_perfectly(probes):
    for name in ("repetition", "recall"):
        found = score(Copier(), probes[name])
        assert found.loss == pytest.approx(0, abs=1e-6)
        assert found.accuracy == 1
    # Where another token stands in the answer's place, that is what it copies.
    assert score(Copier(), probes["recall"]).control_loss == pytest.approx(SURE, rel=1e-6)


def test_a_gain_is_the_mean_over_sequences_with_its_standard_error(probes):
    probe = probes["repetition"]
    model = Copier()

    def losses(sequences):
        logits = model(sequences, use_cache=False).logits[:, :-1].log_softmax(-1)
        found = -logits.gather(-1, sequences[:, 1:, None])[..., 0].double()
        return torch.stack([row[asked].mean() for row, asked in zip(found, probe.answers[:, 1:], strict=True)])

    gains = losses(probe.controls) - losses(probe.sequences)
    found = score(model, probe)
    assert found.gain == pytest.approx(float(gains.mean()), rel=1e-6)
    assert found.gain_stderr == pytest.approx(float(gains.std()) / math.sqrt(len(gains)), rel=1e-6)
    assert found.gain == pytest.approx(found.control_loss - found.loss, rel=1e-6)


def test_one_sequence_has_no_standard_error(probes):
    whole = probes["recall"]
    one = Probe(**{name: value if name == "name" else value[:1] for name, value in vars(whole).items()})
    assert score(Copier(), one).gain_stderr is None


def test_a_loss_that_is_no_number_is_said(probes):
    class Broken(Copier):
        def __call__(self, input_ids, use_cache):
            return SimpleNamespace(logits=super().__call__(input_ids, use_cache).logits * float("nan"))

    with pytest.raises(LossNotFinite, match="probe `recall`"):
        score(Broken(), probes["recall"])


def test_a_text_without_matter_is_refused():
    with pytest.raises(DataInvalid, match="4 distinct tokens"):
        draw(torch.tensor([[START, 2, 3, 4, 5, 2, 3, 4, 5]]))
    with pytest.raises(DataInvalid, match="comes again") as refused:
        draw(torch.arange(2, 12)[None])
    assert "probes: null" in refused.value.instance_next_step


def test_short_windows_have_short_probes():
    tokens = windows(length=24)[:, :8].clone()
    tokens[:, 5] = tokens[:, 2]
    for probe in draw(tokens).values():
        assert probe.sequences.shape[1] <= 8
        assert probe.answers.any(1).all()
