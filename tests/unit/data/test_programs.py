"""Programs: the same seed, the same text; splits apart; what they say they print is what Python prints."""

import contextlib
import io
from itertools import islice

from sentinel.data.loaders.documents import load_documents
from sentinel.data.programs import generate_programs, split_programs
from sentinel.data.stories import split_of
from sentinel.data_spec import BuiltinData

SAMPLE = list(islice(generate_programs(seed=3), 300))


def test_a_seed_decides_every_program():
    assert list(islice(generate_programs(seed=3), 300)) == SAMPLE
    assert next(generate_programs(seed=4)) != SAMPLE[0]
    assert len(set(SAMPLE)) == len(SAMPLE)


def test_every_comment_says_what_the_program_prints():
    for program in SAMPLE:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(program, {})
        assert printed.getvalue().split() == [line.partition("# ")[2] for line in program.splitlines() if "# " in line]


def test_no_program_is_in_both_splits():
    train, evaluation = set(split_programs("train", 500)), set(split_programs("evaluation", 50))
    assert (len(train), len(evaluation)) == (500, 50)
    assert {split_of(program) for program in evaluation} == {"evaluation"}
    assert not train & evaluation


def test_a_spec_can_name_them():
    documents = load_documents(BuiltinData(id="programs"), allowed_roots=None)
    assert documents.description == "built-in programs"
    assert next(iter(documents.train)) == next(split_programs("train", 1))
    assert list(documents.evaluation) == list(split_programs("evaluation", 800))
