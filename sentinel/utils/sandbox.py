"""What a process gives up before it reads what strangers made: privileges, the network, a look at its secrets.

Linux only, and without any right that an unprivileged process lacks. What is given up stays so, for every thread and
every child. A function that cannot do what it is for says why, so that somebody can be told. Knows no jobs.

A seccomp filter cuts off the network, as it needs no namespace, which containers do not allow, and reaches threads that
run already. It refuses sockets to anywhere else; pipes, and sockets that lead to processes of this host, go on to work.
"""

import ctypes
import errno
import os
import platform
import sys
from pathlib import Path
from typing import NamedTuple

# From linux/prctl.h, linux/seccomp.h and linux/bpf_common.h.
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_GET_ACTION_AVAIL = 2
# For every thread of the process; and without the brakes that kernels before 5.16 put on whatever is filtered.
_FOR_ALL_THREADS_AT_FULL_SPEED = 1 | 4
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.ENETUNREACH
_LOAD, _IF_EQUAL, _IF_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
_UNIX, _NETLINK = 1, 16  # families; by the second, libraries ask the kernel
# Where a filter finds what was called, by which convention, and the lower half of the first argument.
_AT_CALL, _AT_CONVENTION, _AT_FIRST_ARGUMENT = 0, 4, 16
_IO_URING_SETUP = 425  # the same on every architecture; it would open sockets past the filter
_X32_CALLS = 0x40000000  # the second set of calls of x86_64 has them all once more

_OOM_SCORE = Path("/proc/self/oom_score_adj")
_FIRST_TO_GO = "1000"


class _Calls(NamedTuple):
    """An architecture's calling convention, and the numbers of its calls."""

    convention: int
    seccomp: int
    socket: int


_CALLS = {"x86_64": _Calls(0xC000003E, 317, 41), "aarch64": _Calls(0xC00000B7, 277, 198)}


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("then", ctypes.c_ubyte),
        ("otherwise", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


class Unenforced(Exception):
    """Something could not be given up, so a process goes on with it."""


def give_up_privileges() -> None:
    """No program that this process starts gets more rights than it has; and it is the first to go when memory runs out.

    Raises:
        Unenforced: Not on this system.
    """
    if sys.platform != "linux":
        raise Unenforced(f"{platform.system()} cannot take privileges from a process.")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    try:
        _OOM_SCORE.write_text(_FIRST_TO_GO, encoding="ascii")
    except OSError as error:
        raise Unenforced(f"{_OOM_SCORE} cannot be written: {error.strerror}.") from error


def cut_network() -> None:
    """Let no thread of this process open a socket to another host, or to a port of this one.

    Raises:
        Unenforced: Not on this system.
    """
    if (obstacle := network_obstacle()) is not None:
        raise Unenforced(obstacle)
    calls = _CALLS[platform.machine()]
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)  # without which a filter takes privileges
    filtering = _filter(calls)
    program = _Program(len(filtering), filtering)
    if _seccomp(calls, _SECCOMP_SET_MODE_FILTER, _FOR_ALL_THREADS_AT_FULL_SPEED, program):
        raise Unenforced(f"The kernel does not take the filter: {os.strerror(ctypes.get_errno())}.")


def network_obstacle() -> str | None:
    """Why the network could not be cut off here; None where it can."""
    if sys.platform != "linux":
        return f"{platform.system()} has no seccomp."
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return f"Nobody has written the filter for {platform.machine()} yet."
    action = ctypes.c_uint(_REFUSE & 0xFFFF0000)
    if _seccomp(calls, _SECCOMP_GET_ACTION_AVAIL, 0, action):
        return "The kernel was built without seccomp, or something forbids it."
    return None


def hide_secrets() -> None:
    """Let no other process of this user read this one's memory or environment; only Linux can, elsewhere it may."""
    if sys.platform == "linux":
        _prctl(_PR_SET_DUMPABLE, 0)


def _filter(calls: _Calls) -> "ctypes.Array[_Instruction]":
    """Jumps count the instructions that they pass over."""
    instructions = (
        _Instruction(_LOAD, 0, 0, _AT_CONVENTION),
        _Instruction(_IF_EQUAL, 0, 7, calls.convention),
        _Instruction(_LOAD, 0, 0, _AT_CALL),
        _Instruction(_IF_GREATER_EQUAL, 5, 0, _X32_CALLS),
        _Instruction(_IF_EQUAL, 4, 0, _IO_URING_SETUP),
        _Instruction(_IF_EQUAL, 0, 4, calls.socket),
        _Instruction(_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
        _Instruction(_IF_EQUAL, 2, 0, _UNIX),
        _Instruction(_IF_EQUAL, 1, 0, _NETLINK),
        _Instruction(_RETURN, 0, 0, _REFUSE),
        _Instruction(_RETURN, 0, 0, _ALLOW),
    )
    return (_Instruction * len(instructions))(*instructions)


def _seccomp(calls: _Calls, operation: int, flags: int, argument: ctypes.c_uint | _Program) -> int:
    """0, or what tells that it failed; `ctypes.get_errno` tells why."""
    numbers = map(ctypes.c_ulong, (calls.seccomp, operation, flags))
    return int(ctypes.CDLL(None, use_errno=True).syscall(*numbers, ctypes.byref(argument)))


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))):
        raise Unenforced(f"The kernel refuses prctl {option}: {os.strerror(ctypes.get_errno())}.")
