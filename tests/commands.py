"""Calls the `sentinel` command in this process."""

import sys
from types import SimpleNamespace

import pytest

from sentinel import cli


def call(patch, capsys, *arguments):
    """Its exit code and what it printed."""
    patch.setattr(sys, "argv", ["sentinel", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    return SimpleNamespace(code=ended.value.code or 0, out=printed.out, err=printed.err)
