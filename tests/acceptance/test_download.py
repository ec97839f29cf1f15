"""A download that is cut again and again, as the benchmark does it, with a small file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "download.py"
MEGABYTE = 1024 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")
def test_a_download_is_cut_and_killed_and_goes_on():
    command = [sys.executable, BENCHMARK, "--size", "32", "--cuts", "4", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert (figures["verified"], figures["kills"]) == (True, 2)
    # What is on its way at a cut is lost, some MB each; begun anew behind the last, it would be 60 MB.
    assert 32 * MEGABYTE <= figures["fetched_bytes"] < 48 * MEGABYTE
