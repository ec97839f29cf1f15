"""Loading from the hub protocol, over a real socket: a small endpoint serves folders under a path prefix."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_endpoint import COMMIT, Hub, serving

LOAD = """
import json, sys
from sentinel.errors import SentinelError
from sentinel.models.loaders.load import load_model
from sentinel.spec import HubModel

outcomes = {}
for name, revision in json.loads(sys.argv[1]):
    try:
        model, _, family = load_model(HubModel(id=name, revision=revision), device="cpu", dtype="float32")
        outcomes[f"{name}@{revision}"] = family.counts(model, "attention")
    except SentinelError as error:
        outcomes[f"{name}@{revision}"] = error.code
print(json.dumps(outcomes))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with serving(tmp_path / "hub") as hub:
        yield hub


def load(hub: Hub, *models: tuple[str, str], home: Path, **environment: str) -> object:
    return hub.run(LOAD, json.dumps(models), home=home, **environment)


def test_models_come_from_the_hub_at_a_pinned_commit(hub, saved_models, tmp_path):
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
    assert load(hub, *wanted, home=tmp_path / "home") == {
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


def test_without_an_endpoint_only_what_was_downloaded_is_there(hub, saved_models, tmp_path):
    for name in ("seen", "unseen"):
        shutil.copytree(saved_models / "gpt2", hub.root / "someone" / name)
    seen, unseen = ("someone/seen", "main"), ("someone/unseen", "main")
    load(hub, seen, home=tmp_path)
    hub.requests.clear()
    offline = load(hub, seen, unseen, home=tmp_path, HF_HUB_OFFLINE="1")
    assert offline == {"someone/seen@main": [4, 4, 4], "someone/unseen@main": "hub_unreachable"}
    assert hub.requests == []
    hub.url = "http://127.0.0.1:9/hub"
    assert load(hub, seen, home=tmp_path) == {"someone/seen@main": "hub_unreachable"}
