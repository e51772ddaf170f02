"""Runs a command for which io_uring_setup fails: seccomp.py EPERM|ENOSYS COMMAND...

What container runtimes do to their containers: docker answers EPERM, older ones ENOSYS.
"""

import ctypes
import errno
import os
import struct
import sys

# From linux/prctl.h, linux/seccomp.h, linux/audit.h and asm/unistd.h.
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000
ARCH_X86_64, ARCH_AARCH64 = 0xC000003E, 0xC00000B7
IO_URING_SETUP = 425  # the same on both
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER_AT, ARCH_AT = 0, 4  # in struct seccomp_data


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def refuse(error):
    def step(code, k, jump_true=0, jump_false=0):
        return struct.pack("=HBBI", code, jump_true, jump_false, k)

    steps = [
        step(LOAD, ARCH_AT),
        step(JUMP_EQUAL, ARCH_X86_64, 1, 0),
        step(JUMP_EQUAL, ARCH_AARCH64, 0, 3),
        step(LOAD, NUMBER_AT),
        step(JUMP_EQUAL, IO_URING_SETUP, 0, 1),
        step(RETURN, RET_ERRNO | error),
        step(RETURN, RET_ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(steps))
    program = Program(len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)

    def prctl(option, *arguments):
        arguments = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
        if libc.prctl(option, *arguments):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))

    # The filter stands, and says what it was told to.
    if libc.syscall(IO_URING_SETUP, 1, None) != -1 or ctypes.get_errno() != error:
        raise SystemExit("the filter does not refuse io_uring_setup as it should")


refuse(getattr(errno, sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
