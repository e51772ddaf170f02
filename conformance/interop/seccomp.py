"""Runs a command under a filter of system calls, as container runtimes do: seccomp.py EPERM|ENOSYS|PROFILE.json COMMAND...

With an error io_uring_setup fails: docker answers EPERM, older ones ENOSYS. With a profile, as docker takes it, what it does not
allow does; its architectures and arguments are not looked at.
"""

import ctypes
import errno
import json
import os
import re
import struct
import subprocess
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


def step(code, k, jump_true=0, jump_false=0):
    return struct.pack("=HBBI", code, jump_true, jump_false, k)


def refusing(error):
    """The steps by which io_uring_setup fails."""
    return [
        step(LOAD, ARCH_AT),
        step(JUMP_EQUAL, ARCH_X86_64, 1, 0),
        step(JUMP_EQUAL, ARCH_AARCH64, 0, 3),
        step(LOAD, NUMBER_AT),
        step(JUMP_EQUAL, IO_URING_SETUP, 0, 1),
        step(RETURN, RET_ERRNO | error),
        step(RETURN, RET_ALLOW),
    ]


def allowing(profile):
    """The steps by which all fails that a profile does not allow."""
    with open(profile, encoding="utf-8") as file:
        profile = json.load(file)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO", "the profile is a list of what is allowed"
    numbers = subprocess.run(
        ["cc", "-E", "-dM", "-include", "asm/unistd.h", "-x", "c", "/dev/null"], check=True, capture_output=True, text=True
    ).stdout
    numbers = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", numbers)}
    steps = [step(LOAD, NUMBER_AT)]
    for rule in profile["syscalls"]:
        assert rule["action"] == "SCMP_ACT_ALLOW"
        for name in rule["names"]:
            # Some are those of other architectures.
            if name in numbers:
                steps += [step(JUMP_EQUAL, numbers[name], 0, 1), step(RETURN, RET_ALLOW)]
    return [*steps, step(RETURN, RET_ERRNO | profile["defaultErrnoRet"])]


def apply(steps):
    code = ctypes.create_string_buffer(b"".join(steps))
    program = Program(len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)

    def prctl(option, *arguments):
        arguments = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
        if libc.prctl(option, *arguments):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))


what = sys.argv[1]
if what.endswith(".json"):
    apply(allowing(what))
else:
    error = getattr(errno, what)
    apply(refusing(error))
    # The filter stands, and says what it was told to.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(IO_URING_SETUP, 1, None) != -1 or ctypes.get_errno() != error:
        raise SystemExit("the filter does not refuse io_uring_setup as it should")
os.execv(sys.argv[2], sys.argv[2:])
