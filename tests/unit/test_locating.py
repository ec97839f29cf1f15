"""Ids in a spec become local paths for the run, and stay ids in what is told of it."""

from pathlib import Path

import pytest

from sentinel.data_spec import BuiltinData, PathData
from sentinel.errors import SourceElsewhere
from sentinel.inputs import load_inputs
from sentinel.locating import locate
from sentinel.manifest import read_sources
from sentinel.paths import BUILTIN_MODELS
from sentinel.spec import PathModel, parse_spec

PRUNE = {"target": {"sparsity": 0.25}}
UPLOAD, OTHER, JOB = f"upl_{1:032x}", f"upl_{2:032x}", f"job_{3:032x}"


def spec(model, **data):
    return parse_spec({"model": model, "prune": PRUNE} | ({"data": {"source": "upload", **data}} if data else {}))


@pytest.mark.parametrize("source", [{"source": "upload", "id": UPLOAD}, {"source": "job", "id": JOB}])
def test_a_model_by_id_is_a_folder(source):
    located = locate(spec({**source, "dtype": "bfloat16"}), {"model": Path("/there")})
    assert located == (PathModel(path="/there", dtype="bfloat16"), BuiltinData())


def test_texts_by_id_are_files_read_as_the_spec_says():
    said = {"column": "story", "chat": True, "sequence_length": 64, "isolate_documents": True, "held_out": 0.2}
    fetched = {"train": Path("/a.jsonl"), "evaluation": Path("/b.csv")}
    one = locate(spec("builtin/gpt2", train=UPLOAD, **said), fetched)
    assert one.data == PathData(train="/a.jsonl", **said)
    two = locate(spec("builtin/gpt2", train=UPLOAD, evaluation=OTHER), fetched)
    assert two.data == PathData(train="/a.jsonl", evaluation="/b.csv")


@pytest.mark.parametrize("named", [spec({"source": "job", "id": JOB}), spec("builtin/llama", train=UPLOAD)])
def test_without_a_service_a_run_is_refused_before_anything_is_loaded(named):
    with pytest.raises(SourceElsewhere, match="known to a service only") as refused:
        load_inputs(named, allowed_roots=None)
    assert refused.value.fault == "user"
    assert "Submit the spec" in refused.value.instance_next_step


def test_what_was_fetched_may_be_read_and_is_digested():
    named = spec({"source": "upload", "id": UPLOAD})
    fetched = {"model": BUILTIN_MODELS / "llama"}
    inputs = load_inputs(named, allowed_roots=[], fetched=fetched)
    assert inputs.dense.config.model_type == "llama"
    assert read_sources(named, fetched) == read_sources(spec("builtin/llama"))
