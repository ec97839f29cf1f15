"""Tasks of lm_eval on a built-in model, from files and without a network, against sums done here."""

import itertools
import json
import logging
import math
import os
import random
import sys

import numpy as np
import pytest
import torch

from sentinel import experiment
from sentinel.errors import PathNotAllowed, SpecInvalid
from sentinel.events import Phase, PhaseStarted
from sentinel.inputs import load_inputs
from sentinel.models.loaders.load import load_model
from sentinel.models.task_evaluation import LmEvalMissing, TaskInvalid, load_tasks
from sentinel.spec import BuiltinModel, Evaluate, parse_spec

CPU = torch.device("cpu")
DOCUMENTS = [
    {
        "text": "Once upon a time, there was a",
        "choices": [" little girl", " zebra", " the cat"],
        "gold": 0,
        "next": " little",
    },
    {"text": "Sara and Mia lived", "choices": [" green", " in a house", " ate"], "gold": 1, "next": " in"},
    {"text": "The dog was very", "choices": [" happy", " under", " lived near"], "gold": 1, "next": " happy"},
    {"text": "They were", "choices": [" friends", " ball", " said the"], "gold": 2, "next": " happy"},
]
COMMON = {"dataset_path": "json", "test_split": "test", "target_delimiter": ""}
CHOICE = {
    "task": "story_choice",
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
READING = {
    "task": "story_reading",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [
        {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False},
        {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False},
    ],
}
# Its standard error is bootstrapped.
NEXT = {
    "task": "story_next",
    "output_type": "loglikelihood",
    "doc_to_text": "{{text}}",
    "doc_to_target": "{{next}}",
    "metric_list": [{"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "documents.jsonl").write_text("\n".join(map(json.dumps, DOCUMENTS)))
    data = {"dataset_kwargs": {"data_files": {"test": str(folder / "documents.jsonl")}}}
    for task in (CHOICE, READING, NEXT):
        (folder / f"{task['task']}.yaml").write_text(json.dumps(COMMON | data | task))
    return folder


@pytest.fixture(scope="module")
def evaluate(folder):
    return Evaluate(task_files=[str(folder / f"{task['task']}.yaml") for task in (CHOICE, READING, NEXT)])


@pytest.fixture(scope="module")
def tasks(evaluate):
    return load_tasks(evaluate, device=CPU, allowed_roots=None)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def loaded(request):
    return load_model(BuiltinModel(id=request.param), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def scores(tasks, loaded):
    return tasks.scores(loaded.model, loaded.tokenizer)


@torch.no_grad()
def log_probability(loaded, context, continuation):
    """Of the continuation behind the context, one token after the other."""
    read, total = list(context), 0.0
    for token in continuation:
        logits = loaded.model(input_ids=torch.tensor([read])).logits[0, -1]
        total += float(logits.log_softmax(-1)[token])
        read.append(token)
    return total


def tokens(loaded, text):
    return loaded.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_accuracy_is_that_of_the_summed_log_probabilities(loaded, scores):
    right = []
    for document in DOCUMENTS:
        context = tokens(loaded, document["text"])
        sums = [log_probability(loaded, context, tokens(loaded, choice)) for choice in document["choices"]]
        right.append(sums.index(max(sums)) == document["gold"])
    score = scores["story_choice", "acc"]
    share = sum(right) / 4
    assert 0 < share < 1
    assert score.value == share
    assert score.stderr == pytest.approx(math.sqrt(share * (1 - share) / 3))
    assert (score.documents, score.higher_is_better) == (4, True)


def test_perplexities_are_those_of_all_tokens_behind_an_end_token(loaded, scores):
    start = [loaded.tokenizer.eos_token_id]
    texts = [document["text"] for document in DOCUMENTS]
    nats = -sum(log_probability(loaded, start, tokens(loaded, text)) for text in texts)
    words, size = (sum(len(part) for part in parts) for parts in (map(str.split, texts), map(str.encode, texts)))
    assert scores["story_reading", "word_perplexity"].value == pytest.approx(math.exp(nats / words), rel=1e-4)
    assert scores["story_reading", "bits_per_byte"].value == pytest.approx(nats / size / math.log(2), rel=1e-4)
    assert scores["story_reading", "bits_per_byte"].stderr is None


def test_a_perplexity_has_a_bootstrapped_error(loaded, scores):
    sums = [log_probability(loaded, tokens(loaded, d["text"]), tokens(loaded, d["next"])) for d in DOCUMENTS]
    score = scores["story_next", "perplexity"]
    assert score.value == pytest.approx(math.exp(-sum(sums) / 4), rel=1e-4)
    all_draws = [math.exp(-sum(drawn) / 4) for drawn in itertools.product(sums, repeat=4)]
    assert score.stderr == pytest.approx(np.std(all_draws), rel=0.15)


def test_scores_repeat(tasks, loaded, scores):
    assert tasks.scores(loaded.model, loaded.tokenizer) == scores


def test_nothing_of_lm_eval_stays(evaluate, loaded, capfd, caplog):
    caplog.set_level(logging.INFO)
    pad, environment, level = loaded.tokenizer.pad_token, dict(os.environ), logging.getLogger("lm_eval").level
    drawn = []
    for work in (lambda: None, lambda: load_tasks(evaluate, device=CPU, allowed_roots=None).scores(*loaded[:2])):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        work()
        drawn.append((random.random(), np.random.random(), float(torch.rand(1))))
    assert drawn[0] == drawn[1]
    assert loaded.tokenizer.pad_token == pad
    assert os.environ == environment
    assert logging.getLogger("lm_eval").level == level
    assert capfd.readouterr() == ("", "")
    assert [record.message for record in caplog.records if record.name.startswith("lm_eval")] == []
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in loaded.model.modules())


def test_a_limit_takes_the_first_documents(evaluate, loaded):
    limited = load_tasks(evaluate.model_copy(update={"task_limit": 2}), device=CPU, allowed_roots=None)
    scores = limited.scores(loaded.model, loaded.tokenizer)
    assert scores["story_choice", "acc"].value == 1
    assert {score.documents for score in scores.values()} == {2}


def test_unknown_names_are_refused_with_near_ones():
    with pytest.raises(SpecInvalid, match=r"no task 'helaswag'. Did you mean hellaswag") as refused:
        load_tasks(Evaluate(tasks=["lambada_openai", "helaswag"]), device=CPU, allowed_roots=None)
    assert [error.pointer for error in refused.value.errors] == ["/evaluate/tasks/1"]


def test_a_path_is_no_name_of_a_task(folder):
    with pytest.raises(ValueError, match="string_pattern_mismatch"):
        Evaluate(tasks=[str(folder / "story_choice.yaml")])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no task file"),
        ("- a list", "ValueError: Expected YAML dict"),
        ("task: x\ndataset_path: json\ndataset_kwargs: {data_files: nowhere.jsonl}", "FileNotFoundError"),
        ("task: x\nprocess_docs: !function nowhere.f", "nowhere"),
    ],
)
def test_what_cannot_be_loaded_is_said(tmp_path, content, message):
    file = tmp_path / "task.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(TaskInvalid, match=message):
        load_tasks(Evaluate(task_files=[str(file)]), device=CPU, allowed_roots=None)


def test_a_task_that_runs_what_the_model_writes_is_refused(folder, tmp_path):
    (tmp_path / "task.yaml").write_text((folder / "story_choice.yaml").read_text()[:-1] + ', "unsafe_code": true}')
    with pytest.raises(TaskInvalid, match="would run code"):
        load_tasks(Evaluate(task_files=[str(tmp_path / "task.yaml")]), device=CPU, allowed_roots=None)


def test_with_roots_no_task_file_is_read(tmp_path):
    """Not even one that lies under a root: it names a function, which would run."""
    (tmp_path / "code.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\ndef f(x): return x\n")
    (tmp_path / "task.yaml").write_text("task: x\nprocess_docs: !function code.f\n")
    evaluate = Evaluate(task_files=[str(tmp_path / "task.yaml")])
    with pytest.raises(PathNotAllowed, match="run code"):
        load_tasks(evaluate, device=CPU, allowed_roots=[tmp_path])
    assert not (tmp_path / "ran").exists()
    with pytest.raises(TaskInvalid):  # without roots it does run
        load_tasks(evaluate, device=CPU, allowed_roots=None)
    assert (tmp_path / "ran").exists()


class Recorder:
    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)


def spec(evaluate):
    return parse_spec(
        {
            "model": "builtin/llama",
            "data": {"source": "builtin", "sequence_length": 32},
            "prune": {
                "target": {"sparsity": 0.25},
                "strategy": "random",
                "compensation": None,
                "search": None,
                "calibration_sequences": 4,
            },
            "heal": {"steps": 2, "batch_tokens": 64},
            "evaluate": {"tokens": 64, **evaluate},
            "device": "cpu",
        }
    )


def test_a_run_with_tasks_ends_with_the_same_weights(evaluate, tmp_path):
    bare = experiment.run(spec({}), output=tmp_path / "bare", reporter=Recorder())
    with_tasks = spec({"task_files": evaluate.task_files, "task_limit": 3})
    result = experiment.run(with_tasks, output=tmp_path / "tasks", reporter=Recorder())
    one, other = (tmp_path / name / "checkpoint" / "model.safetensors" for name in ("bare", "tasks"))
    assert one.read_bytes() == other.read_bytes()
    assert bare.tasks == []
    assert {found.task for found in result.tasks} == {"story_choice", "story_reading", "story_next"}
    word = next(found for found in result.tasks if found.metric == "perplexity")
    assert word.dense != word.pruned
    card = (tmp_path / "tasks" / "checkpoint" / "README.md").read_text()
    assert f"| {word.dense:.4f} ± {word.dense_stderr:.4f} | {word.pruned:.4f} ± {word.pruned_stderr:.4f} |" in card
    manifest = json.loads((tmp_path / "tasks" / "checkpoint" / "sentinel.json").read_text())
    assert manifest["spec"]["evaluate"]["task_files"] == list(manifest["sources"]["tasks"])
    assert "lm_eval" in manifest["versions"]


def test_a_broken_task_stops_the_run_before_pruning(folder, tmp_path):
    (tmp_path / "task.yaml").write_text(
        (folder / "story_choice.yaml").read_text().replace("{{choices}}", "{{no_such_column}}")
    )
    recorder = Recorder()
    with pytest.raises(TaskInvalid):
        experiment.run(spec({"task_files": [str(tmp_path / "task.yaml")]}), output=tmp_path, reporter=recorder)
    assert Phase.PRUNING not in [event.phase for event in recorder.events if isinstance(event, PhaseStarted)]


def test_without_the_extra_it_is_said_before_anything_is_loaded(folder, tmp_path, monkeypatch):
    """And nothing but tasks misses it."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # as good as not installed, to Python
    nowhere = {"source": "path", "path": str(tmp_path / "nowhere")}
    for evaluate in ({"tasks": ["hellaswag"]}, {"task_files": [str(folder / "story_choice.yaml")]}):
        with pytest.raises(LmEvalMissing) as missing:
            load_inputs(spec(evaluate).model_copy(update={"model": nowhere}), allowed_roots=None)
        assert "pip install 'sentinel-pruning[lm-eval]'" in missing.value.instance_next_step
    assert load_inputs(spec({}), allowed_roots=None).tasks.scores(None, None) == {}
