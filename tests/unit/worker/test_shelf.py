import obstore
import pytest

from api.store.errors import ObjectDamaged, ObjectMissing
from api.store.leases import Claim
from api.store.storage import Storage
from worker.shelf import Shelf

CLAIM = Claim(job_id="job_1", token=2, attempt=1, waited_s=0, needs_bytes=None, spec={}, resume=None)


@pytest.fixture
def storage(backing):
    return Storage(backing.uri)


@pytest.fixture
def shelf(storage):
    return Shelf(storage, CLAIM, check=lambda: None)


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def test_a_state_comes_back_as_it_was(shelf, tmp_path):
    files = {"state.json": "{}", "model.safetensors": "weights"}
    manifest = shelf.store_state(write(tmp_path / "cycle-0001", files))
    back = shelf.fetch(manifest, tmp_path / "resume")
    assert {path.name: path.read_text() for path in back.iterdir()} == files


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda backing, key: backing.write(key, b"other"), ObjectDamaged),
        (lambda backing, key: backing.remove(key), ObjectMissing),
    ],
)
def test_a_damaged_or_lost_state_is_refused(shelf, backing, tmp_path, damage, error):
    manifest = shelf.store_state(write(tmp_path / "cycle-0001", {"state.json": "{}"}))
    damage(backing, manifest[0]["storage_key"])
    with pytest.raises(error):
        shelf.fetch(manifest, tmp_path / "resume")


def test_published_are_the_results_and_the_log_but_no_resume_state(shelf, tmp_path):
    output = write(
        tmp_path / "output",
        {
            "checkpoint/config.json": "{}",
            "checkpoint/model.safetensors": "w",
            "result.json": "{}",
            "metrics.jsonl": "",
            "plots/losses.png": "png",
            "plots/losses.svg": "svg",
            "plots/losses.vl.json": "{}",
            "state/cycle-0001/state.json": "{}",
            "stray.txt": "",
        },
    )
    log = write(tmp_path, {"runner.log": "words"}) / "runner.log"
    published = {artifact.path: (artifact.kind, artifact.media_type) for artifact in shelf.store_output(output, log)}
    assert published == {
        "checkpoint/config.json": ("checkpoint", "application/json"),
        "checkpoint/model.safetensors": ("checkpoint", "application/octet-stream"),
        "metrics.jsonl": ("metrics", "application/jsonl"),
        "plots/losses.png": ("plot", "image/png"),
        "plots/losses.svg": ("plot", "image/svg+xml"),
        "plots/losses.vl.json": ("plot", "application/json"),
        "result.json": ("result", "application/json"),
        "runner.log": ("log", "text/plain"),
    }


def test_keys_carry_job_token_and_hash(shelf, tmp_path):
    (file,) = shelf.store_state(write(tmp_path / "cycle-0001", {"state.json": "{}"}))
    assert file["storage_key"] == f"jobs/job_1/attempts/2/{file['sha256']}"


def state_and_output(tmp_path):
    """A cycle's state, and results with the same weights in them; a log."""
    state = write(tmp_path / "cycle-0001", {"model.safetensors": "weights"})
    output = write(tmp_path / "output", {"checkpoint/model.safetensors": "weights"})
    return state, output, write(tmp_path, {"runner.log": "words"}) / "runner.log"


def test_what_the_job_would_go_on_from_is_not_written_again(shelf, backing, tmp_path, monkeypatch):
    """A write that damages it would cost the state, which is published if the job is cancelled after all."""
    state, output, log = state_and_output(tmp_path)
    (kept,) = shelf.store_state(state)
    put = obstore.put

    def damaging(store, key, *content, **options):
        put(store, key, *content, **options)
        backing.write(key, b"damaged")

    monkeypatch.setattr(obstore, "put", damaging)
    with pytest.raises(ObjectDamaged):
        shelf.store_output(output, log)  # the log is new
    assert backing.read(kept["storage_key"]) == b"weights"


def test_a_state_that_was_damaged_since_is_written_again(shelf, backing, tmp_path):
    state, output, log = state_and_output(tmp_path)
    (kept,) = shelf.store_state(state)
    backing.write(kept["storage_key"], b"damaged")
    shelf.store_output(output, log)
    assert backing.read(kept["storage_key"]) == b"weights"


def test_an_attempt_that_is_over_stops_storing(storage, tmp_path):
    class Over(Exception):
        pass

    def over():
        raise Over

    with pytest.raises(Over):
        Shelf(storage, CLAIM, check=over).store_state(write(tmp_path / "cycle-0001", {"state.json": "{}"}))
