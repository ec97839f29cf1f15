"""Loading from the hub protocol, over a real socket: a small endpoint serves folders under a path prefix."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hub_endpoint import COMMIT, Hub, serving

LOAD = """
from sentinel.errors import SentinelError
from sentinel.models.loaders.load import load_model
from sentinel.spec import HubModel

def outcome(name, revision):
    try:
        model, _, family = load_model(HubModel(id=name, revision=revision), device="cpu", dtype="float32")
        return family.counts(model, "attention")
    except SentinelError as error:
        return error.code

def answer(*models):
    return {"@".join(model): outcome(*model) for model in models}
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with serving(tmp_path_factory.mktemp("models") / "hub") as hub:
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what was downloaded is kept."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def load(hub: Hub, home: Path) -> Iterator[Callable[..., object]]:
    """Load from the hub, by a name and a revision each."""
    with hub.client(LOAD, home=home) as load:
        yield load


def test_models_come_from_the_hub_at_a_pinned_commit(hub, load, saved_models):
    hub.requests.clear()
    good = shutil.copytree(saved_models / "llama", hub.root / "someone" / "good")
    (good / "onnx").mkdir()
    for name in ("pytorch_model.bin", "modeling_evil.py", "consolidated.safetensors", "onnx/model.safetensors"):
        (good / name).write_bytes(b"never wanted")
    pickled = shutil.copytree(saved_models / "llama", hub.root / "someone" / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    coded = shutil.copytree(saved_models / "llama", hub.root / "someone" / "coded")
    config = json.loads((coded / "config.json").read_text())
    (coded / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "evil.Evil"}}))

    names = ("good", "pickled", "coded", "missing", "broken")
    wanted = [(f"someone/{name}", "main") for name in names] + [("someone/good", "no-such-branch")]
    assert load(*wanted) == {
        "someone/good@main": [4, 4, 4],
        "someone/pickled@main": "model_unsafe",
        "someone/coded@main": "model_unsafe",
        "someone/missing@main": "model_not_found",
        "someone/broken@main": "hub_unreachable",
        "someone/good@no-such-branch": "model_not_found",
    }
    fetched = [path for path in hub.requests if "/resolve/" in path]
    assert any("model.safetensors" in path for path in fetched)
    assert all(f"/resolve/{COMMIT}/" in path for path in fetched)
    assert not [path for path in fetched if "pickled" in path or path.endswith((".bin", ".py"))]
    assert not [path for path in fetched if "onnx" in path or "consolidated" in path]


def test_without_an_endpoint_only_what_was_downloaded_is_there(hub, load, home, saved_models):
    for name in ("seen", "unseen"):
        shutil.copytree(saved_models / "gpt2", hub.root / "someone" / name)
    seen, unseen = ("someone/seen", "main"), ("someone/unseen", "main")
    assert load(seen) == {"someone/seen@main": [4, 4, 4]}
    hub.requests.clear()
    with hub.client(LOAD, home=home, HF_HUB_OFFLINE="1") as load_offline:
        assert load_offline(seen, unseen) == {"someone/seen@main": [4, 4, 4], "someone/unseen@main": "hub_unreachable"}
    assert hub.requests == []


def test_what_was_downloaded_is_not_taken_for_what_a_hub_says_that_is_away(hub, load, saved_models):
    shutil.copytree(saved_models / "gpt2", hub.root / "someone" / "known")
    assert load(("someone/known", "main")) == {"someone/known@main": [4, 4, 4]}
    with hub.away():
        assert load(("someone/known", "main")) == {"someone/known@main": "hub_unreachable"}
