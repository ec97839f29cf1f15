"""What one request may take from the others of its process."""

import gc
import sys

import pytest

from api import interpreter


@pytest.fixture
def restored():
    """The tests go on as they were."""
    before = sys.getswitchinterval()
    yield
    gc.unfreeze()
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restored")
def test_what_is_there_already_is_not_looked_at_again():
    assert gc.get_freeze_count() == 0
    interpreter.serve_many()
    assert len(gc.get_objects()) < gc.get_freeze_count()
    assert sys.getswitchinterval() == pytest.approx(interpreter.SWITCH_S)
