"""What a process has given up; each is asked of one that may lose it."""

import json
import socket
import subprocess
import sys

import pytest

from sentinel.utils import sandbox

pytestmark = pytest.mark.skipif(sandbox.network_obstacle() is not None, reason="this system cannot take the network")

CUT = """
import ctypes, json, socket, subprocess, sys, threading
from sentinel.utils import sandbox

def reason(attempt):
    try:
        attempt()
    except OSError as error:
        return error.errno

def call(number):
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.syscall(ctypes.c_ulong(number), 1, 0, 0) < 0 else None

found = {}
cut = threading.Event()

def connect():
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5).close()

def in_another_thread():
    cut.wait(60)
    found["thread"] = reason(connect)

other = threading.Thread(target=in_another_thread, daemon=True)
other.start()
before = reason(connect)
sandbox.cut_network()
cut.set()
other.join()
program = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])))"
child = subprocess.run([sys.executable, "-c", program, sys.argv[1]], capture_output=True, text=True)
found |= {
    "here": reason(connect),
    "udp": reason(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "ipv6": reason(lambda: socket.socket(socket.AF_INET6)),
    "io_uring": call(425),
    "unreachable in a program": "unreachable" in child.stderr,
}
local = reason(lambda: (socket.socketpair(), socket.socket(socket.AF_UNIX)))
print(json.dumps([before, local, found]))
"""


def run(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_without_the_network_no_thread_and_no_program_reaches_even_this_host():
    with socket.create_server(("127.0.0.1", 0)) as server:
        before, local, found = run(CUT, str(server.getsockname()[1]))
    assert (before, local) == (None, None)
    assert found.pop("unreachable in a program")
    assert set(found.values()) == {101}  # ENETUNREACH
    assert len(found) == 5


def test_privileges_do_not_come_back():
    code = (
        "import json; from pathlib import Path; from sentinel.utils import sandbox\n"
        "sandbox.give_up_privileges()\n"
        "status = dict(line.split(':\\t', 1) for line in Path('/proc/self/status').read_text().splitlines())\n"
        "print(json.dumps([status['NoNewPrivs'], Path('/proc/self/oom_score_adj').read_text()]))"
    )
    assert run(code) == ["1", "1000\n"]


def test_secrets_are_hidden():
    code = (
        "import ctypes; from sentinel.utils import sandbox\n"
        "look = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"  # PR_GET_DUMPABLE
        "before = look(); sandbox.hide_secrets(); print([before, look()])"
    )
    assert run(code) == [1, 0]


def test_a_system_without_the_means_says_so(monkeypatch):
    monkeypatch.setattr(sandbox.platform, "machine", lambda: "riscv64")
    with pytest.raises(sandbox.Unenforced, match="riscv64"):
        sandbox.cut_network()
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    for give_up in (sandbox.cut_network, sandbox.give_up_privileges):
        with pytest.raises(sandbox.Unenforced):
            give_up()
