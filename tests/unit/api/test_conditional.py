"""Entity tags."""

import pytest

from api.conditional import has_tag, quoted


@pytest.mark.parametrize("header", ['"7"', 'W/"7"', '"6", "7"', "*", ' W/"1" ,"7"'])
def test_a_known_tag_is_found(header):
    assert has_tag(header, quoted(7))


@pytest.mark.parametrize("header", [None, "", '"77"', '"6"', "7"])
def test_an_unknown_tag_is_not(header):
    assert not has_tag(header, quoted(7))
