"""How long a receiver asks to be left alone."""

from datetime import UTC, datetime

import pytest

from api.messenger import asked_wait_s
from api.outbound import Answer

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (429, "3000", 3000),
        (503, "Thu, 01 Jan 2026 12:50:00 GMT", 3000),
        (503, "Thu, 01 Jan 2026 12:50:00", 3000),
        (503, "soon", 0),
        (503, "Mon, 01 Jan 99999999999 00:00:00 GMT", 0),
        (503, "", 0),
        (503, "-5", 0),
        (503, "\N{SUPERSCRIPT TWO}", 0),
        (500, "3000", 0),
        (200, "3000", 0),
    ],
)
def test_retry_after_counts_where_a_receiver_has_too_much_to_do(status, header, seconds):
    assert asked_wait_s(Answer(status=status, headers={"retry-after": header}), NOW) == seconds


def test_a_date_that_has_passed_is_no_wait():
    assert asked_wait_s(Answer(status=503, headers={"retry-after": "Wed, 31 Dec 2025 12:50:00 GMT"}), NOW) <= 0
    assert asked_wait_s(Answer(status=503, headers={}), NOW) == 0
