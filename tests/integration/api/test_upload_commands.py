"""`sentinel upload …` and the client behind it, against a real API."""

import asyncio
import tarfile

import pytest

from sentinel.client import AsyncSentinelClient, SentinelClient
from sentinel.outcomes import ExitCode
from sentinel.paths import BUILTIN_MODELS
from sentinel.replies import Upload
from sentinel.transport import ServiceRefused
from sentinel.uploading import FileChanged, UploadRefused

MODEL = BUILTIN_MODELS / "llama"


class Stopped(Exception):
    """As if the process ended here."""


@pytest.fixture
def client(service, environment):
    key = service.client.headers["Authorization"].removeprefix("Bearer ")
    with SentinelClient(service.base_url, key, patience_s=1) as client:
        yield client


@pytest.fixture
def puts(service, monkeypatch):
    """The files that were sent, in their order."""
    from api.uploads import routes

    sent = []
    receive = routes.Receiver.receive

    async def noted(self, number, body):
        sent.append(number)
        return await receive(self, number, body)

    monkeypatch.setattr(routes.Receiver, "receive", noted)
    return sent


def folder_of(tmp_path, **more):
    """A model's folder with what else lies in such folders."""
    folder = tmp_path / "mine"
    folder.mkdir()
    files = {path.name: path.read_bytes() for path in MODEL.iterdir()}
    for name, content in {**files, "README.md": b"# Mine", ".hidden.json": b"{}", **more}.items():
        (folder / name).write_bytes(content)
    (folder / "runs.json").mkdir()
    return folder


def test_a_model_is_uploaded_listed_and_deleted(command, answer, tmp_path, service):
    folder = folder_of(tmp_path)
    sent = command("upload", "model", folder)
    upload_id, line = sent.out.splitlines()
    assert (sent.code, line) == (0, f"In a spec: model: {{source: upload, id: {upload_id}}}")
    upload = Upload.model_validate(answer("upload", "model", folder))
    assert (upload.id, upload.name, upload.state) == (upload_id, "mine", "ready")
    assert {file.path for file in upload.files} == {path.name for path in MODEL.iterdir()}
    assert command("upload", "get", upload_id).out.count("yes") == len(upload.files)
    assert command("upload", "list").out.splitlines()[1].split()[:4] == [upload_id, "model", "mine", "ready"]
    spec = ("--model.source", "upload", "--model.id", upload_id, "--prune.target.sparsity", "0.25")
    job_id = command("submit", *spec).out.strip()
    assert answer("upload", "delete", upload_id)["error"]["code"] == "upload_in_use"
    command("cancel", job_id)
    assert answer("upload", "delete", upload_id) == {"deleted": upload_id}
    assert answer("upload", "list") == {"data": []}


def test_a_text_is_uploaded(command, answer, tmp_path):
    (tmp_path / "work/stories.txt").write_text("Once upon a time.\n\nThe end.\n" * 50)
    upload_id, line = command("upload", "text", "stories.txt", "--name", "mine").out.splitlines()
    assert line == f"In a spec: data: {{source: upload, train: {upload_id}}}"
    assert answer("upload", "get", upload_id)["name"] == "mine"


def test_an_archive_is_unpacked_there(client, tmp_path, puts):
    archive = tmp_path / "mine.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(MODEL, arcname="mine")
    made = client.upload_model(archive)
    assert made.state == "ready"
    assert {file.path for file in made.files} == {path.name for path in MODEL.iterdir()}
    assert client.upload_model(archive) == made
    assert puts == [0]


def test_an_upload_that_was_cut_off_goes_on_where_it_stopped(client, tmp_path, puts):
    folder, told = folder_of(tmp_path), []
    total = sum(path.stat().st_size for path in MODEL.iterdir())

    def stop(done, total):
        if done > total / 2:  # in the middle of the weights
            raise Stopped

    with pytest.raises(Stopped):
        client.upload_model(folder, progress=stop)
    (open_one,) = client.list_uploads()
    stored = {file.number for file in client.get_upload(open_one.id).files if file.stored}
    assert (open_one.state, bool(stored)) == ("open", True)
    puts.clear()
    made = client.upload_model(folder, progress=lambda *bytes_: told.append(bytes_))
    assert (made.id, made.state, told[-1]) == (open_one.id, "ready", (total, total))
    assert told[0][0] > 0
    assert {*puts} == {file.number for file in made.files} - stored


def test_an_upload_is_checked_whose_last_try_ended_just_before(client, service, tmp_path, monkeypatch):
    from api.uploads.receiving import Receiver

    def broken(self):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Receiver, "_close_if_complete", broken)
        with pytest.raises(ServiceRefused):
            client.upload_text(written(tmp_path, b"Once.\n"))
    (left,) = client.list_uploads()
    assert left.state == "open"
    made = client.upload_text(tmp_path / "text.txt")
    assert (made.id, made.state) == (left.id, "ready")


def written(tmp_path, content):
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    return file


def test_the_async_client_sends_the_same(service, tmp_path):
    key = service.client.headers["Authorization"].removeprefix("Bearer ")

    async def upload():
        async with AsyncSentinelClient(service.base_url, key) as client:
            return await client.upload_model(MODEL)

    assert asyncio.run(upload()).state == "ready"


def test_what_is_no_model_is_refused_for_good(client, tmp_path):
    folder = folder_of(tmp_path, **{"model.safetensors": b"no weights"})
    with pytest.raises(ServiceRefused) as refused:
        client.upload_model(folder)
    assert refused.value.problem.code == "model_invalid"
    with pytest.raises(UploadRefused, match="was refused: "):
        client.upload_model(folder)


def test_a_file_that_shrinks_meanwhile_is_named(client, tmp_path):
    file = written(tmp_path, bytes(3 * 1024 * 1024))

    def shrink(done, _total):
        if done:
            file.write_bytes(b"")

    with pytest.raises(FileChanged, match=r"text\.txt has become shorter"):
        client.upload_text(file, progress=shrink)


def test_nothing_to_upload_says_so(command, answer, tmp_path):
    (tmp_path / "work/empty").mkdir()
    assert answer("upload", "model", "empty")["error"]["code"] == "nothing_to_upload"
    for kind in ("model", "text"):
        nothing = command("upload", kind, "nothing")
        assert (nothing.code, nothing.err.splitlines()[0]) == (ExitCode.WRONG_INPUT, "There is no file nothing.")
