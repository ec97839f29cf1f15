"""Downloads from a service and a storage that break off, lie, and are asked by two at once."""

from hashlib import sha256

import pytest
from filelock import FileLock

from sentinel.service_calls import NoCheckpoint
from sentinel.transport import ServiceRefused
from sentinel.unfinished import DownloadDamaged, DownloadUnderWay, FolderNotEmpty
from tests.scripted_service import JOB, announcing, part, reply

CONFIG, WEIGHTS = b"{}", bytes(range(256)) * 9000
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
BYTES = len(CONFIG) + len(WEIGHTS)


class Stopped(Exception):
    """As if the process ended here."""


def stop(done, _total):
    if done > 1_000_000:
        raise Stopped


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def asked(server, header):
    """What the requests for contents had in a header."""
    return [headers.get(header) for _, path, headers, _ in server.asked if path.endswith("/content")]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pruned"


@pytest.fixture
def hidden(tmp_path):
    return tmp_path / ".pruned.partial"


@pytest.fixture
def half(server, client, folder):
    """A download that was stopped in the middle of the weights; the size that they had."""
    server.script = [announcing(FILES), part(CONFIG), part(WEIGHTS)]
    with pytest.raises(Stopped):
        client.download_checkpoint("job_1", folder, progress=stop)
    server.asked.clear()
    size = (folder.parent / ".pruned.partial/files/model.safetensors").stat().st_size
    assert 1_000_000 < size < len(WEIGHTS)
    assert not folder.exists()
    return size


def test_a_broken_connection_is_gone_on_with(server, client, folder):
    server.script = [announcing(FILES), part(CONFIG), part(WEIGHTS, cut_after=1_000_000), part(WEIGHTS)]
    told = []
    client.download_checkpoint("job_1", folder, progress=lambda done, total: told.append((done, total)))
    assert content_of(folder) == FILES
    assert list(folder.parent.iterdir()) == [folder]
    assert asked(server, "Range") == [None, None, "bytes=1000000-"]
    assert told == sorted(told)
    assert (told[0], told[-1]) == ((0, BYTES), (BYTES, BYTES))


def test_patience_begins_anew_with_every_byte(server, client, folder):
    breaks = [part(WEIGHTS, cut_after=300_000) for _ in range(7)]
    server.script = [announcing(FILES), part(CONFIG), *breaks, part(WEIGHTS)]
    client.download_checkpoint("job_1", folder)
    assert content_of(folder) == FILES
    assert asked(server, "Range")[2:] == [f"bytes={n}00000-" for n in range(3, 24, 3)]


def test_a_download_that_was_stopped_is_gone_on_with(server, client, folder, half):
    server.script = [announcing(FILES), part(WEIGHTS)]
    client.download_checkpoint("job_1", folder)
    assert content_of(folder) == FILES
    assert list(folder.parent.iterdir()) == [folder]
    assert asked(server, "Range") == [f"bytes={half}-"]
    assert asked(server, "If-Range") == [f'"{sha256(WEIGHTS).hexdigest()}"']


def test_what_a_crash_has_spoilt_is_fetched_again(server, client, folder, hidden, half):
    with (hidden / "files/model.safetensors").open("r+b") as weights:
        weights.seek(half - 100)
        weights.write(bytes(100))
    server.script = [announcing(FILES), part(WEIGHTS), part(WEIGHTS)]
    client.download_checkpoint("job_1", folder)
    assert content_of(folder) == FILES
    assert asked(server, "Range") == [f"bytes={half}-", None]


def test_a_service_that_has_another_file_gives_it_from_its_beginning(server, client, folder, half):
    server.script = [announcing(FILES), part(WEIGHTS, tag='"other"')]
    client.download_checkpoint("job_1", folder)
    assert content_of(folder) == FILES


def test_another_job_takes_over_nothing(server, client, folder, half):
    other = {"config.json": CONFIG, "weights": WEIGHTS}
    server.script = [announcing(other), part(CONFIG), part(WEIGHTS)]
    client.download_checkpoint("job_1", folder)
    assert content_of(folder) == other
    assert asked(server, "Range") == [None, None]


def test_two_downloads_into_one_folder_are_refused(server, client, folder, hidden, half):
    with FileLock(hidden / "lock"):
        server.script = [announcing(FILES)]
        with pytest.raises(DownloadUnderWay):
            client.download_checkpoint("job_1", folder)
    assert (hidden / "files/model.safetensors").stat().st_size == half


def test_a_damaged_file_is_fetched_again_and_the_others_are_kept(server, client, folder):
    server.script = [announcing(FILES), part(CONFIG), reply(b"x" * len(WEIGHTS))]
    with pytest.raises(DownloadDamaged, match=r"model\.safetensors"):
        client.download_checkpoint("job_1", folder)
    assert not folder.exists()
    server.script = [announcing(FILES), part(WEIGHTS)]
    client.download_checkpoint("job_1", folder)
    assert content_of(folder) == FILES
    assert asked(server, "Range") == [None, None, None]


@pytest.mark.parametrize("content", [b"short", WEIGHTS + b"x"])
def test_a_file_of_another_length_is_damaged(server, client, folder, content):
    server.script = [announcing({"model.safetensors": WEIGHTS}), reply(content)]
    with pytest.raises(DownloadDamaged):
        client.download_checkpoint("job_1", folder)
    assert list(folder.parent.iterdir()) == []


def test_an_empty_file_is_one_too(server, client, folder):
    server.script = [announcing({"empty": b""})]
    client.download_checkpoint("job_1", folder)
    assert content_of(folder) == {"empty": b""}


@pytest.mark.parametrize("name", ["../escaped", "/escaped"])
def test_an_announced_path_cannot_leave_the_folder(server, client, folder, name):
    server.script = [announcing({name: b"x"})]
    with pytest.raises(DownloadDamaged):
        client.download_checkpoint("job_1", folder)
    assert list(folder.parent.iterdir()) == []


@pytest.fixture
def redirect(server):
    """To another host, by a URL that opens the file to everybody."""
    location = f"http://localhost:{server.server_port}/bucket/key?X-Amz-Signature=secret"
    return reply(b"", status=307, headers=[("Location", location)])


def test_a_storage_gets_no_key_and_its_refusal_tells_no_signed_url(server, client, folder, redirect):
    server.script = [announcing(FILES), redirect, reply(b"<Error/>", status=403, media_type="application/xml")]
    with pytest.raises(ServiceRefused, match="/bucket/key answered HTTP 403") as refused:
        client.download_checkpoint("job_1", folder)
    assert "secret" not in refused.value.message
    assert ["Authorization" in headers for _, _, headers, _ in server.asked] == [True, True, False]


def test_a_download_from_a_storage_goes_on_there(server, client, folder, redirect):
    stored = part(WEIGHTS, tag='"a tag of its own"')
    server.script = [announcing({"weights": WEIGHTS}), redirect, stored]
    with pytest.raises(Stopped):
        client.download_checkpoint("job_1", folder, progress=stop)
    server.script = [announcing({"weights": WEIGHTS}), redirect, stored]
    client.download_checkpoint("job_1", folder)
    assert content_of(folder) == {"weights": WEIGHTS}
    (_, path, headers, _) = server.asked[-1]
    assert path.startswith("/bucket/key")
    assert headers["Range"].startswith("bytes=1")
    assert not {"If-Range", "Authorization"} & headers.keys()


def test_files_are_never_overwritten(server, client, tmp_path):
    (tmp_path / "mine").write_text("x")
    server.script = [announcing(FILES)]
    with pytest.raises(FolderNotEmpty):
        client.download_checkpoint("job_1", tmp_path)


def test_a_job_without_a_checkpoint_is_refused(server, client, folder):
    server.script = [reply(JOB | {"state": "failed", "checkpoint_uri": None})]
    with pytest.raises(NoCheckpoint):
        client.download_checkpoint("job_1", folder)
