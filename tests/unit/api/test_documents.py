"""From a parsed body to a checked spec: every mistake at once, paths included."""

import pytest

from api.jobs.documents import check, fingerprint
from api.refusals import SpecPathsNotAllowed
from sentinel.errors import SpecInvalid

PRUNE = {"target": {"sparsity": 0.25}}


def pointers(document, roots=()):
    with pytest.raises(SpecInvalid) as refused:
        check(document, roots=roots)
    return {error.pointer: error.code for error in refused.value.errors}


def test_a_path_under_a_root_is_allowed(tmp_path):
    spec = check({"model": str(tmp_path / "m"), "prune": PRUNE}, roots=[tmp_path])
    assert spec.model.path == str(tmp_path / "m")


def test_every_path_outside_the_roots_is_named(tmp_path):
    data = {"source": "path", "train": "/etc/passwd", "evaluation": str(tmp_path / "x/../../y")}
    document = {"model": {"source": "path", "path": "~/m"}, "data": data, "prune": PRUNE}
    assert pointers(document, [tmp_path]) == dict.fromkeys(
        ["/model/path", "/data/train", "/data/evaluation"], "path_not_allowed"
    )
    with pytest.raises(SpecPathsNotAllowed):
        check(document, roots=[tmp_path])


def test_paths_of_other_texts_are_looked_at_too(tmp_path):
    domains = {"inside": {"source": "path", "train": str(tmp_path / "a.txt")}, "out": {"source": "path", "train": "/b"}}
    document = {"model": "builtin/gpt2", "prune": PRUNE, "evaluate": {"stress": {"domains": domains}}}
    assert pointers(document, [tmp_path]) == {"/evaluate/stress/domains/out/train": "path_not_allowed"}
    del domains["out"]
    assert check(document, roots=[tmp_path]).evaluate.domains.keys() == {"inside"}
    for nonsense in ({"stress": 3}, {"stress": {"domains": ["a"]}}, {"stress": {"domains": {"a": "b"}}}):
        assert all(pointer.startswith("/evaluate/stress") for pointer in pointers(document | {"evaluate": nonsense}))


def test_task_files_are_refused_even_under_a_root(tmp_path):
    evaluate = {"tasks": ["hellaswag"], "task_files": [str(tmp_path / "task.yaml")]}
    document = {"model": "builtin/gpt2", "prune": PRUNE, "evaluate": evaluate}
    assert pointers(document, [tmp_path]) == {"/evaluate/task_files": "path_not_allowed"}
    assert check(document | {"evaluate": {"tasks": ["hellaswag"]}}, roots=[tmp_path]).evaluate.tasks == ["hellaswag"]


def test_a_link_out_of_a_root_is_outside(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to("/etc")
    document = {"model": str(tmp_path / "root" / "link"), "prune": PRUNE}
    assert pointers(document, [tmp_path / "root"]) == {"/model": "path_not_allowed"}


@pytest.mark.parametrize("path", ["/a\x00b", "~nobody-has-this-name/m"])
def test_what_is_no_path_is_refused(path, tmp_path):
    assert pointers({"model": path, "prune": PRUNE}, [tmp_path]) == {"/model": "path_not_allowed"}


def test_paths_are_named_beside_other_mistakes():
    document = {"model": "/etc", "prune": {"target": {"sparsity": 1.5}}, "extra": 1}
    assert pointers(document) == {
        "/model": "path_not_allowed",
        "/prune/target/sparsity": "less_than",
        "/extra": "extra_forbidden",
    }


@pytest.mark.parametrize("document", [None, [], 3, "text", {"model": []}, {"model": {"source": []}}, {"data": 1}])
def test_whatever_was_sent_is_refused_with_pointers(document):
    assert pointers(document)


def test_fingerprint_knows_meaning_not_spelling():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
