import subprocess
import sys


def test_a_healing_killed_anywhere_ends_with_the_same_weights():
    """One of `make faults`' twenty."""
    command = [sys.executable, "-m", "tests.faults.healing_kills", "--kills", "1", "--first-seed", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 ended with the weights" in done.stdout
