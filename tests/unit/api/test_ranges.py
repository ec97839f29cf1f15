"""Range headers of RFC 9110."""

import pytest

from api.artifacts.ranges import ByteRange, parse_range
from api.refusals import RangeUnsatisfiable


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=2-5", ByteRange(2, 4)),
        ("bytes=4-", ByteRange(4, 6)),
        ("bytes=-3", ByteRange(7, 3)),
        ("bytes=-99", ByteRange(0, 10)),
        ("bytes=8-99", ByteRange(8, 2)),
        ("bytes=0-999999999999999999", ByteRange(0, 10)),
    ],
)
def test_one_range_is_honoured(header, part):
    assert parse_range(header, 10) == part


@pytest.mark.parametrize("header", [None, "", "bytes=", "bytes=-", "bytes=0-1,3-4", "lines=0-1", "bytes=5-2", "0-4"])
def test_what_is_not_one_range_gets_the_whole_file(header):
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=99-100", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_a_range_without_a_byte_is_refused(header, size):
    with pytest.raises(RangeUnsatisfiable):
        parse_range(header, size)


def test_content_range_names_the_last_byte():
    assert ByteRange(2, 4).content_range(10) == "bytes 2-5/10"
