# SPDX-License-Identifier: MIT
"""denied - kernels and containers that do not allow everything, made with seccomp(2)"""
import ctypes
import errno
import struct

# System calls by number, or with the offset and the value of an argument in struct seccomp_data.
CALLS = {
    "userfaultfd": (323,), "PAGEMAP_SCAN": (16, 24, 0xC0606610), "UFFDIO_API": (16, 24, 0xC018AA3F),
    "PROCMAP_QUERY": (16, 24, 0xC0686611), "process_vm_readv": (310,), "kcmp": (312,),
    "pidfd_open": (434,), "memfd_create": (319,), "socketpair": (53,), "io_uring_setup": (425,),
    "clone3": (435,), "rseq": (334,), "madvise": (28,), "mlock": (149,), "close_range": (436,),
    "tee": (276,), "unshare": (272,), "ptrace": (101,), "membarrier": (324,), "statx": (332,),
    "execveat": (322,), "waitid": (247,), "set_robust_list": (273,), "get_robust_list": (274,),
    "signalfd": (289,), "prlimit": (302,), "prctl": (157,), "PR_GET_TID_ADDRESS": (157, 16, 40),
    "PR_SET_MM": (157, 16, 35), "PR_SET_NAME": (157, 16, 15), "fadvise": (221,),
    "copy_file_range": (326,), "linkat": (265,), "sched_setaffinity": (203,),
}
NEEDED = {"mkdir": (83,), "fsync": (74,), "fdatasync": (75,)}  # what a test denies for other reasons
RETURN_ERRNO, ALLOW = 0x00050000, 0x7FFF0000


def denying(*calls, error=None):
    """A preexec_fn that makes system calls fail with `error`, EPERM otherwise (ENOTTY: ioctls)."""
    def instruction(code, k, jt=0, jf=0):
        return struct.pack("HBBI", code, jt, jf, k)

    load, equal, ret = 0x20, 0x15, 0x06
    program = []
    for name in calls:
        number, *argument = (CALLS | NEEDED)[name]
        code = error or (errno.ENOTTY if number == 16 else errno.EPERM)
        program += [instruction(load, 0), instruction(equal, number, 0, 3 if argument else 1)]
        if argument:
            program += [instruction(load, argument[0]), instruction(equal, argument[1], 0, 1)]
        program.append(instruction(ret, RETURN_ERRNO | code))
    program.append(instruction(ret, ALLOW))
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
