"""mdcapture on a disk that takes what is written and can't force it: `python unforced.py capture …`.

The kernel answers each fdatasync(2) of this process, and of those that it starts, with an input/output error.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import runpy
import struct

FDATASYNC = {"x86_64": 75, "aarch64": 83}
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_MODE_FILTER = 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse(syscall: int, number: int) -> None:
    """Let a system call fail from now on (seccomp(2)): load its number, compare it, return one answer or the other."""
    steps = [
        (_LOAD, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 1, syscall),
        (_RETURN, 0, 0, _ERROR | number),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    libc = ctypes.CDLL(None, use_errno=True)
    program = ctypes.byref(_Program(len(steps), code))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    refuse(FDATASYNC[platform.machine()], errno.EIO)
    runpy.run_module("mdcapture", run_name="__main__", alter_sys=True)
