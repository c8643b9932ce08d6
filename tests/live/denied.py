# SPDX-License-Identifier: MIT
"""denied - kernels and containers that do not let changes be tracked, made with seccomp(2)"""
import ctypes
import struct


def denying(*calls):
    """A preexec_fn that makes system calls fail: seccomp(2), a classic BPF program."""
    def instruction(code, k, jt=0, jf=0):
        return struct.pack("HBBI", code, jt, jf, k)

    load, equal, ret = 0x20, 0x15, 0x06
    allow, errno_ = 0x7FFF0000, 0x00050000
    program = [instruction(load, 0)]
    if "userfaultfd" in calls:
        program += [instruction(equal, 323, 0, 1), instruction(ret, errno_ | 1)]
    if "PAGEMAP_SCAN" in calls:  # ioctl with this request
        program += [instruction(equal, 16, 0, 3), instruction(load, 24),
                    instruction(equal, 0xC0606610, 0, 1), instruction(ret, errno_ | 25)]
    program.append(instruction(ret, allow))
    code = b"".join(program)

    def install():
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(code)

        class Filter(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

        filter_ = Filter(len(program), ctypes.addressof(buffer))
        if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(filter_), 0, 0):
            raise OSError(ctypes.get_errno(), "seccomp")
    return install
