"""A full disk is told from other trouble; what is written to `/dev/full` finds no space."""

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from sentinel.data.loaders.columns import reading
from sentinel.errors import DataInvalid, DiskFull
from sentinel.utils.disk import telling_full_disk

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def by_python():
    FULL.write_text("content")


def by_safetensors():
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def while_reading():
    with reading("a.csv"):
        FULL.write_text("content")


def while_handling_another():
    try:
        FULL.write_text("content")
    finally:
        raise ValueError("a temporary file is left")


@pytest.mark.parametrize("write", [by_python, by_safetensors, while_reading, while_handling_another])
def test_a_full_disk_is_told_whoever_met_it(write):
    with pytest.raises(DiskFull, match="No space is left: "), telling_full_disk():
        write()


@pytest.mark.parametrize("error", [DataInvalid("a.csv is empty."), OSError(errno.EACCES, "no"), ValueError("28")])
def test_other_trouble_stays_as_it_is(error):
    with pytest.raises(type(error)) as raised, telling_full_disk():
        raise error
    assert raised.value is error
