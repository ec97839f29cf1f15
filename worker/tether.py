"""Replaces itself by a command that ends when its parent ends: `python -m worker.tether PARENT_PID SIGNAL COMMAND…`.

Whoever starts servers on one host uses it so that even `kill -9` of the starter leaves none behind.
The kernel does it (Linux, prctl(2) PR_SET_PDEATHSIG); elsewhere the command runs untethered, and
only a starter that is killed by force leaves it behind. Knows nothing of what it starts.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def tethered(command: Sequence[str], *, ending: signal.Signals = signal.SIGTERM) -> list[str]:
    """The command line that runs `command` until this process ends, then sends it `ending`."""
    return [sys.executable, "-P", "-m", "worker.tether", str(os.getpid()), str(int(ending)), *command]


def tie_to(parent: int, ending: signal.Signals) -> None:
    """Have this process sent `ending` when its parent ends, on Linux; ends it now if that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(ending))
        if os.getppid() != parent:
            sys.exit(1)


def main(arguments: Sequence[str]) -> None:
    """Tie this process to its parent, then become the command."""
    parent, ending, *command = arguments
    tie_to(int(parent), signal.Signals(int(ending)))
    os.execvp(command[0], command)  # noqa: S606 - the command line is our own


if __name__ == "__main__":
    main(sys.argv[1:])
