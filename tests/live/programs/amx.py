# SPDX-License-Identifier: MIT
"""A thread that keeps data in AMX tiles while it spins in machine code, across recoveries.

Where the processor has no AMX the thread keeps it in an SSE register instead.

live: rounds=40
"""
import ctypes
import mmap
import sys
import threading
import time

try:
    import pyheap
except ImportError:
    import plain as pyheap

SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA = 158, 0x1023, 18

# void keep(config, source, target, flag): load, spin until *flag, store.
KEEP_TILE = bytes.fromhex(
    "c4e2784907"        # ldtilecfg (%rdi)
    "4c8d042540000000"  # lea 64, %r8
    "c4a27b4b0406"      # tileloadd (%rsi,%r8,1), %tmm0
    "833900"            # cmpl $0, (%rcx)
    "74fb"              # je back
    "c4a27a4b0402"      # tilestored %tmm0, (%rdx,%r8,1)
    "c4e27849c0"        # tilerelease
    "c3")
KEEP_XMM = bytes.fromhex(
    "0f1006"            # movups (%rsi), %xmm0
    "833900"            # cmpl $0, (%rcx)
    "74fb"              # je back
    "0f1102"            # movups %xmm0, (%rdx)
    "c3")


def main(rounds):
    amx = ctypes.CDLL(None).syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0
    size = 1024 if amx else 16
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(KEEP_TILE if amx else KEEP_XMM)
    pointer = ctypes.c_void_p
    keep = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, pointer)(
        ctypes.addressof(ctypes.c_char.from_buffer(page)))
    config = (ctypes.c_uint8 * 64)()
    config[0], config[16], config[48] = 1, 64, 16  # palette, bytes in a row, rows
    for r in range(rounds):
        source = (ctypes.c_uint8 * size)(*[(i * 7 + r) & 255 for i in range(size)])
        target, flag = (ctypes.c_uint8 * size)(), ctypes.c_int(0)
        thread = threading.Thread(target=keep, args=(config, source, target, ctypes.byref(flag)))
        thread.start()
        time.sleep(0.001)
        pyheap.epoch(f"round {r}")
        time.sleep(0.001)
        assert bytes(target) == bytes(size)
        flag.value = 1
        thread.join()
        assert bytes(target) == bytes(source), r
    print("kept in every round of", rounds)


main(int(sys.argv[1]))
