"""The hub endpoint: the protocol's answers over a real socket, and the real clients in processes of their own."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from api.main import create_app
from api.settings import Settings
from api.store.database import db_now
from api.store.models import Artifact
from sentinel.events import Finished
from sentinel.model_limits import ModelLimits
from sentinel.paths import BUILTIN_MODELS
from tests.integration.api.conftest import Service, serving
from worker.child import Runner
from worker.runner import Assignment

WEIGHTS = bytes(range(256)) * 9000
FILES = {"config.json": b"{}\n", "model.safetensors": WEIGHTS, "plots/deep/a.png": b"png", "plots/b.png": b"PNG"}


def in_checkpoint(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"checkpoint/{path}": content for path, content in files.items()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def commit_of(files: dict[str, bytes]) -> str:
    printed = "".join(f"{sha256(files[path])}  {path}\n" for path in sorted(files))
    return sha256(printed.encode())[:40]


@pytest.fixture(scope="module")
def service(tmp_path_factory, migrated_sqlite):
    folder = tmp_path_factory.mktemp("service").resolve()
    shutil.copy(migrated_sqlite, folder / "sentinel.db")
    settings = Settings(home=folder, redis_url=f"redis+socket://{folder}/none.sock")
    with serving(app := create_app(settings)) as base_url:
        running = Service(app, base_url, settings, folder)
        yield running
        running.client.close()


def publish(service, files: dict[str, bytes], client: httpx.Client | None = None) -> str:
    """A job that has ended with this checkpoint."""
    service.submit(client)
    claim = service.claim()
    service.finish(claim, in_checkpoint(files) | {"plots/losses.png": b"not the model's"})
    return claim.job_id


@pytest.fixture(scope="module")
def job(service) -> str:
    return publish(service, FILES)


@pytest.fixture(scope="module")
def ask(service, job):
    """Ask for something under the job's model."""

    def get(path, client=service.client, method="GET", **options):
        return client.request(method, f"/hub/{path.format(job=f'jobs/{job}')}", **options)

    return get


COMMIT = commit_of(FILES)
FILE = "{job}/resolve/main/model.safetensors"


@pytest.mark.parametrize("path", ["", "/revision/main", f"/revision/{COMMIT}"])
def test_a_model_s_info_names_its_commit_and_its_files(ask, job, path):
    info = ask(f"api/models/{{job}}{path}").json()
    assert (info["id"], info["sha"]) == (f"jobs/{job}", COMMIT)
    assert [sibling["rfilename"] for sibling in info["siblings"]] == sorted(FILES)
    weights = next(sibling for sibling in info["siblings"] if sibling["rfilename"] == "model.safetensors")
    assert (weights["size"], weights["lfs"]["sha256"]) == (len(WEIGHTS), sha256(WEIGHTS))
    assert (info["private"], info["gated"], info["disabled"]) == (True, False, False)


def test_the_same_files_are_the_same_commit_whichever_job_they_are_of(service, ask):
    other = publish(service, dict(reversed(FILES.items())))
    changed = publish(service, FILES | {"config.json": b"{ }\n"})
    named = publish(service, {**FILES, "config.jsom": FILES["config.json"]})
    found = [ask(f"api/models/jobs/{job}").json()["sha"] for job in (other, changed, named)]
    assert found[0] == COMMIT
    assert len(set(found)) == 3


def test_trees_have_folders_and_go_as_deep_as_asked(ask):
    def paths(folder="", **query):
        entries = ask(f"api/models/{{job}}/tree/main{folder}", params=query).json()
        return {entry["path"]: entry["type"] for entry in entries}

    files = dict.fromkeys(FILES, "file")
    assert paths() == {"config.json": "file", "model.safetensors": "file", "plots": "directory"}
    assert paths(recursive="true") == files | {"plots": "directory", "plots/deep": "directory"}
    assert paths("/plots") == {"plots/b.png": "file", "plots/deep": "directory"}
    assert paths("/plots", recursive="True") == {
        "plots/b.png": "file",
        "plots/deep": "directory",
        "plots/deep/a.png": "file",
    }


def test_a_file_says_its_commit_and_what_a_download_says(ask):
    head, whole = ask(FILE, method="HEAD"), ask(FILE.replace("main", COMMIT))
    part = ask(FILE, headers={"Range": "bytes=2000000-"})
    assert [answer.content for answer in (head, whole, part)] == [b"", WEIGHTS, WEIGHTS[2_000_000:]]
    assert (head.headers["Content-Length"], head.headers["Accept-Ranges"]) == (str(len(WEIGHTS)), "bytes")
    for answer in (head, whole, part):
        assert answer.headers["X-Repo-Commit"] == COMMIT
        assert answer.headers["ETag"] == answer.headers["X-Linked-Etag"] == f'"{sha256(WEIGHTS)}"'
        assert answer.headers["X-Linked-Size"] == str(len(WEIGHTS))
        assert not [name for name in answer.headers if "xet" in name.lower()]


REFUSED = {
    "api/models/{job}/revision/refs%2Fpr%2F1": (404, "RevisionNotFound"),
    f"api/models/{{job}}/tree/{COMMIT[::-1]}": (404, "RevisionNotFound"),
    "{job}/resolve/v1/config.json": (404, "RevisionNotFound"),
    "{job}/resolve/main/absent.json": (404, "EntryNotFound"),
    "{job}/resolve/main/%C3%A9%0A": (404, "EntryNotFound"),
    "{job}/resolve/main/plots": (404, "EntryNotFound"),
    "{job}/resolve/main/checkpoint/config.json": (404, "EntryNotFound"),
    "{job}/resolve/main/..%2Fplots%2Flosses.png": (404, "EntryNotFound"),
    "api/models/{job}/tree/main/additional_chat_templates": (404, "EntryNotFound"),
    "api/models/jobs/job_none": (404, "RepoNotFound"),
    "jobs/job_none/resolve/main/config.json": (404, "RepoNotFound"),
    "api/models/distilgpt2": (404, "RepoNotFound"),
    "distilgpt2/resolve/main/config.json": (404, "RepoNotFound"),
    "api/datasets/jobs/x/revision/main": (404, "RepoNotFound"),
    "datasets/jobs/x/resolve/main/README.md": (404, "RepoNotFound"),
}


@pytest.mark.parametrize(("path", "refused_with"), REFUSED.items())
def test_what_is_not_there_is_said_in_the_protocol_s_words(ask, path, refused_with):
    answer = ask(path)
    assert (answer.status_code, answer.headers["X-Error-Code"]) == refused_with
    assert answer.headers["X-Error-Message"]
    assert answer.json()["next_step"]
    assert answer.headers.get("X-Repo-Commit") == (COMMIT if refused_with[1] == "EntryNotFound" else None)


def test_a_job_without_a_checkpoint_says_why_it_has_none(service, ask):
    service.submit()
    answer = ask(f"api/models/jobs/{service.claim().job_id}")
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (409, "RepoNotFound")
    assert "The job is running: it has not ended yet." in answer.headers["X-Error-Message"]


def test_a_model_that_is_not_kept_any_more_is_gone(service, ask):
    expired = publish(service, FILES)
    with service.database.transaction() as session:
        session.execute(update(Artifact).where(Artifact.job_id == expired).values(expired_at=db_now()))
    answer = ask(f"jobs/{expired}/resolve/main/config.json")
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (410, "RepoNotFound")
    assert "is not kept any more. Retry the job" in answer.headers["X-Error-Message"]


def test_each_caller_finds_what_its_key_may_read(service, ask):
    nobody = httpx.Client(base_url=service.base_url)
    with service.client_of("bob") as bob, service.client_of("ann", "submit") as writer, nobody:
        for path in (FILE, "api/models/{job}", "api/models/{job}/tree/main"):
            answers = [
                ask(path, bob),
                ask(path, writer),
                ask(path, headers={"Authorization": "Bearer sntl_0_wrong"}),
                ask(path, nobody),
            ]
            refusals = [(a.status_code, a.headers.get("X-Error-Code")) for a in answers]
            assert refusals == [(404, "RepoNotFound"), (403, "GatedRepo"), (401, None), (401, "RepoNotFound")]
            assert answers[2].headers["X-Error-Message"] == "Invalid credentials in Authorization header"


ASK = """
import json, sys
from importlib.util import find_spec
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

name, foreign = sys.argv[1:]
api, commit = HfApi(), HfApi().model_info(name).sha

def refusal(ask, *arguments, **options):
    try:
        return ask(*arguments, **options)
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        return type(error).__name__

info = api.model_info(name, files_metadata=True)
print(json.dumps({
    "commit": [commit, api.repo_info(name, revision=commit).sha, api.resolve_revision(name).resolved],
    "dates": info.created_at <= info.last_modified,
    "sizes": {file.rfilename: file.size for file in info.siblings},
    "files": sorted(api.list_repo_files(name, revision=commit)),
    "exist": [api.file_exists(name, file) for file in ("config.json", "absent.json")]
    + [api.repo_exists(repository) for repository in (name, foreign)]
    + [api.revision_exists(name, revision) for revision in (commit, "v1")],
    "one": hf_hub_download(name, "model.safetensors", revision=commit),
    "all": snapshot_download(name),
    "verified": [list(getattr(api.verify_repo_checksums(name), kind)) for kind in ("mismatches", "missing_paths")],
    "refused": [
        refusal(hf_hub_download, name, "absent.json"),
        refusal(snapshot_download, name, revision="v1"),
        refusal(snapshot_download, foreign),
        refusal(api.model_info, name, token=False),
        refusal(snapshot_download, name, token=False, cache_dir="other"),
    ],
    "xet": [find_spec("hf_xet") is not None, "hf_xet" in sys.modules],
}))
"""


def test_the_client_library_finds_and_fetches_everything(service, job, tmp_path):
    with service.client_of("bob") as bob:
        foreign = publish(service, FILES, bob)
    names = (f"jobs/{job}", f"jobs/{foreign}")
    found = json.loads(service.run_hub_client(tmp_path / "home", sys.executable, "-c", ASK, *names))
    assert found["commit"] == [COMMIT] * 3
    assert found["sizes"] == {path: len(content) for path, content in FILES.items()}
    assert found["files"] == sorted(FILES)
    assert found["exist"] == [True, False, True, False, True, False]
    assert found["xet"] == [True, False]
    assert found["dates"]
    assert found["verified"] == [[], []]
    assert Path(found["one"]).read_bytes() == WEIGHTS
    assert {path: (Path(found["all"]) / path).read_bytes() for path in FILES} == FILES
    assert Path(found["all"]).name == COMMIT
    assert found["refused"] == [
        "RemoteEntryNotFoundError",
        "RevisionNotFoundError",
        *["RepositoryNotFoundError"] * 3,
    ]


def test_the_command_line_downloads_a_model(service, job, tmp_path):
    command = [sys.executable, "-m", "huggingface_hub.cli.hf", "download", f"jobs/{job}", "--local-dir", "model"]
    service.run_hub_client(tmp_path / "home", *command)
    assert {path: (tmp_path / "model" / path).read_bytes() for path in FILES} == FILES


@pytest.fixture(scope="module")
def dense(service) -> str:
    """A job whose checkpoint is a built-in model."""
    return publish(service, {file.name: file.read_bytes() for file in (BUILTIN_MODELS / "llama").iterdir()})


@pytest.fixture(scope="module")
def pruned(service, dense, tiny_spec, tmp_path_factory) -> tuple[dict, str]:
    """The manifest of what a worker's child makes of that checkpoint, found on the hub, and a job that has it."""
    folder = tmp_path_factory.mktemp("worker")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HF_")]:
            patch.delenv(name)
        variables = service.hub_variables(folder / "home")
        for name, value in variables.items():
            patch.setenv(name, value)
        runner = Runner(folder / "runner", {})
    try:
        model = {"source": "hub", "id": f"jobs/{dense}"}
        spec = tiny_spec(model=model, heal=None, export={"form": "remote_code"})
        runner.assign(
            Assignment(
                spec=spec,
                resume=None,
                fetched={},
                allowed_roots=[],
                limits=ModelLimits(),
                hub_token=variables["HF_TOKEN"],
                memory_bytes=2**40,
                log_fields={},
            )
        )
        events, ended = [], False
        while not ended:
            some, ended = runner.next_events(wait_s=1, limit=100)
            events += some
        assert isinstance(events[-1], Finished), (events[-1], runner.log_tail())
        checkpoint = runner.output / "checkpoint"
        files = {str(file.relative_to(checkpoint)): file for file in checkpoint.rglob("*") if file.is_file()}
        job = publish(service, {path: file.read_bytes() for path, file in files.items()})
        return json.loads((checkpoint / "sentinel.json").read_text()), job
    finally:
        runner.close()


def test_a_worker_prunes_a_pruned_model_again(service, dense, pruned):
    manifest, _ = pruned
    weights = sha256((BUILTIN_MODELS / "llama" / "model.safetensors").read_bytes())
    assert manifest["spec"]["model"]["id"] == f"jobs/{dense}"
    assert manifest["sources"]["commit"] == service.client.get(f"/hub/api/models/jobs/{dense}").json()["sha"]
    assert manifest["sources"]["model"]["model.safetensors"] == weights


LOAD = """
import json, sys
import torch
from sentinel.models.loaders.load import load_model
from sentinel.spec import HubModel
from transformers import AutoModelForCausalLM, AutoTokenizer

local, dense, commit, uneven = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(dense, revision=commit)
tokens = tokenizer("Once upon a time", return_tensors="pt").input_ids
expected = AutoModelForCausalLM.from_pretrained(local)(tokens).logits
models = [AutoModelForCausalLM.from_pretrained(dense, **at) for at in ({}, {"revision": commit})]
same = [torch.equal(model(tokens).logits, expected) for model in models]
coded = AutoModelForCausalLM.from_pretrained(uneven, trust_remote_code=True)
rebuilt = load_model(HubModel(id=uneven), device="cpu", dtype="float32").model
same.append(torch.equal(rebuilt(tokens).logits, coded(tokens).logits))
print(json.dumps([same, type(coded).__module__.split(".")[0], sum(p.numel() for p in rebuilt.parameters())]))
"""


def test_transformers_and_our_own_loader_load_models_by_name_and_commit(service, dense, pruned, tmp_path):
    manifest, uneven = pruned
    commit = manifest["sources"]["commit"]
    names = (str(BUILTIN_MODELS / "llama"), f"jobs/{dense}", commit, f"jobs/{uneven}")
    loaded = json.loads(service.run_hub_client(tmp_path / "home", sys.executable, "-c", LOAD, *names))
    parameters = manifest["result"]["pruned"]["parameters"]
    assert loaded == [[True, True, True], "transformers_modules", parameters]
