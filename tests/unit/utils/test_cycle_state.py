import pytest

from sentinel.errors import CheckpointInvalid
from sentinel.spec import parse_spec
from sentinel.utils.checkpoints.cycle_state import (
    CycleState,
    drop_superseded,
    load_state,
    save_state,
    spec_digest,
    state_folder,
)

DOCUMENT = {"model": "builtin/gpt2", "prune": {"target": {"sparsity": 0.25}}}


def checkpoint_of(text):
    def write(folder):
        folder.mkdir()
        (folder / "config.json").write_text(text)

    return write


@pytest.fixture
def saved(tmp_path):
    spec = parse_spec(DOCUMENT)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"name": "loss"}\n')
    state = CycleState(
        spec_sha256=spec_digest(spec),
        cycle=2,
        kept={"attention": [[1]], "mlp": [[0, 2]]},
        records=[],
        timings_s={"healing": 1.5},
    )
    folder = state_folder(tmp_path / "state", 2)
    save_state(folder, state, metrics, write_checkpoint=checkpoint_of("{}"))
    return folder, spec, state


def test_what_was_saved_comes_back(saved):
    folder, spec, state = saved
    assert load_state(folder, spec) == state
    assert (folder / "checkpoint" / "config.json").read_text() == "{}"
    assert (folder / "metrics.jsonl").read_text() == '{"name": "loss"}\n'
    assert [file.name for file in folder.parent.iterdir()] == ["cycle-0002"]


def test_saving_again_replaces_the_older_state(saved, tmp_path):
    folder, spec, state = saved
    later = state.model_copy(update={"kept": {"attention": [[0]], "mlp": [[]]}})
    save_state(folder, later, tmp_path / "metrics.jsonl", write_checkpoint=checkpoint_of("later"))
    assert load_state(folder, spec).kept == {"attention": [[0]], "mlp": [[]]}
    assert (folder / "checkpoint" / "config.json").read_text() == "later"


def test_a_state_whose_checkpoint_cannot_be_written_does_not_appear(saved, tmp_path):
    folder, spec, state = saved

    def fail(folder):
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        save_state(state_folder(folder.parent, 3), state, tmp_path / "metrics.jsonl", write_checkpoint=fail)
    assert not state_folder(folder.parent, 3).exists()
    assert load_state(folder, spec) == state


def test_name_and_limits_may_change_between_attempts_but_nothing_else(saved):
    folder, _, state = saved
    assert load_state(folder, parse_spec({**DOCUMENT, "name": "x", "limits": {"max_runtime_s": 5}})) == state
    with pytest.raises(CheckpointInvalid, match="another spec"):
        load_state(folder, parse_spec({**DOCUMENT, "seed": 1}))


def test_damage_is_noticed(saved):
    folder, spec, _ = saved
    (folder / "state.json").write_text("{")
    with pytest.raises(CheckpointInvalid, match="Cannot read"):
        load_state(folder, spec)


def test_states_sort_as_they_come_and_those_in_a_healing_are_superseded(tmp_path):
    order = [(0, 5), (0, 10), (1, None), (1, 5), (1, 100), (2, None)]
    folders = [state_folder(tmp_path, cycle, step=step) for cycle, step in order]
    assert sorted(folders) == folders
    for folder in folders:
        folder.mkdir()
    drop_superseded(folders[4])
    assert sorted(tmp_path.iterdir()) == [folders[2], *folders[4:]]


def test_what_a_healing_needs_lies_in_its_own_folder(saved, tmp_path):
    folder, _, state = saved
    save_state(
        state_folder(folder.parent, 2, step=7),
        state,
        tmp_path / "metrics.jsonl",
        write_checkpoint=checkpoint_of("{}"),
        write_training=lambda training: (training / "moments").write_text("m"),
    )
    assert (folder.parent / "cycle-0002-step-00000007/training/moments").read_text() == "m"
