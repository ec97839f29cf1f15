"""Commits of the hub that a run reads: no run knows of the one before, and the endpoint's branch moves between them."""

import json
import shutil

import pytest

from sentinel.paths import BUILTIN_MODELS
from tests.hub_endpoint import COMMIT, serving

MOVED = COMMIT[::-1]
RUN = """
from pathlib import Path
from sentinel.experiment import run
from sentinel.spec import parse_spec

class Silent:
    def emit(self, event):
        pass

def answer(document, output, resume):
    run(parse_spec(document), output=Path(output), reporter=Silent(), resume=resume and Path(resume))
    manifest = json.loads((Path(output) / "checkpoint" / "sentinel.json").read_text())
    return manifest["spec"]["model"]["revision"], manifest["sources"], manifest["files"]["model.safetensors"]
"""


@pytest.fixture
def hub(tmp_path):
    with serving(tmp_path / "hub") as hub:
        shutil.copytree(BUILTIN_MODELS / "llama", hub.root / "org" / "llama")
        (hub.root / "org" / "llama" / "README.md").write_text("# No model is loaded from this.\n")
        folder = hub.root / "datasets" / "org" / "stories"
        folder.mkdir(parents=True)
        for split in ("train", "validation"):
            stories = [f"{split} {number}: " + "Once there was a cat. " * 20 for number in range(20)]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps({"text": story}) + "\n" for story in stories))
        yield hub


def test_a_run_reads_one_commit_and_goes_on_with_it_when_the_branch_has_moved(hub, tiny_spec, tmp_path):
    data = {"source": "hub", "id": "org/stories", "sequence_length": 64}
    stress = {"domains": {"other": data}, "tokens": 256, "probes": None, "alternation": None, "damage": None}
    evaluate = {"tokens": 1024, "stress": stress}
    spec = tiny_spec(model={"source": "hub", "id": "org/llama"}, data=data, heal=None, evaluate=evaluate)

    with hub.client(RUN, home=tmp_path / "home") as run:
        revision, sources, weights = run(spec, str(tmp_path / "first"), None)
        assert (revision, sources["commit"], sources["text_commit"]) == ("main", COMMIT, COMMIT)
        assert sources["domain_commits"] == {"other": COMMIT}
        asked_for_main = [path for path in hub.requests if "main" in path]
        names = ("models/org/llama", "datasets/org/stories", "datasets/org/stories")
        assert asked_for_main == [f"/hub/api/{name}/revision/main" for name in names]

        hub.commits.append(MOVED)
        hub.requests.clear()
        again = run(spec, str(tmp_path / "first"), str(tmp_path / "first" / "state" / "cycle-0001"))
        assert again == [revision, sources, weights]
        assert not [path for path in hub.requests if "main" in path or MOVED in path]
