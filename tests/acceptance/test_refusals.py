"""Models that must not be loaded: told with a code, whose fault it is, and what to do; nothing is tried twice."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

import sentinel
from sentinel.transport import ServiceRefused

BUILTIN = Path(sentinel.__file__).parent / "models" / "builtin" / "llama"


class Bomb:
    """A pickle that leaves a trace if anybody opens it."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.fixture
def folder(service, request):
    """A copy of a good model under the service's allowed root."""
    copy = service.key_file.parent / "models" / request.node.name.replace("[", "-").rstrip("]")
    shutil.copytree(BUILTIN, copy)
    return copy


def with_pickle(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder / "opened")))


def with_code(folder):
    change(folder, auto_map={"AutoModelForCausalLM": "modeling.Model"})
    (folder / "modeling.py").write_text(f"open({str(folder / 'opened')!r}, 'w')")


def of_unknown_kind(folder):
    change(folder, model_type="rwkv", architectures=["RwkvForCausalLM"])


def change(folder, **entries):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [(with_pickle, "model_unsafe"), (with_code, "model_unsafe"), (of_unknown_kind, "model_unsupported")],
)
def test_a_model_that_must_not_be_loaded_fails_at_once(client, tiny_spec, folder, spoil, code):
    spoil(folder)
    job = client.wait(client.submit(tiny_spec() | {"model": str(folder)}).id)
    assert (job.state, job.attempt) == ("failed", 1)
    assert (job.error.code, job.error.fault) == (code, "user")
    assert job.error.next_step
    assert not (folder / "opened").exists()


def test_a_path_outside_the_allowed_roots_is_refused_before_it_is_accepted(client, tiny_spec, tmp_path):
    with pytest.raises(ServiceRefused) as refused:
        client.submit(tiny_spec() | {"model": str(tmp_path)})
    problem = refused.value.problem
    assert [(error.pointer, error.code) for error in problem.errors] == [("/model", "path_not_allowed")]
    assert problem.next_step


def test_a_link_out_of_the_allowed_roots_is_refused_too(client, tiny_spec, folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(BUILTIN / "model.safetensors")
    job = client.wait(client.submit(tiny_spec() | {"model": str(folder)}).id)
    assert (job.state, job.error.code, job.error.fault) == ("failed", "path_not_allowed", "user")
