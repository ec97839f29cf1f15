"""The tar that is made while it is sent."""

import io
import tarfile

import pytest

from api.artifacts.tar import Member, length, stream

CONTENTS = {
    "config.json": b"{}",
    "empty": b"",
    "full-block": b"x" * 512,
    "more.safetensors": bytes(range(256)) * 5,
    "folder/" + "long-" * 40 + "é.txt": b"long name",
}


def members(contents):
    return [
        Member(name=name, size=len(data), modified_s=1.5, chunks=lambda data=data: iter([data[:3], data[3:]]))
        for name, data in contents.items()
    ]


@pytest.mark.parametrize("contents", [CONTENTS, {}])
def test_tarfile_reads_back_what_was_sent(contents):
    sent = b"".join(stream(members(contents)))
    with tarfile.open(fileobj=io.BytesIO(sent)) as archive:
        found = {info.name: archive.extractfile(info).read() for info in archive.getmembers()}
        modes = {(info.mode, info.uid, info.mtime) for info in archive.getmembers()}
    assert found == contents
    assert modes <= {(0o644, 0, 1)}


def test_the_length_is_known_before_anything_is_opened():
    assert length(members(CONTENTS)) == len(b"".join(stream(members(CONTENTS))))
