# SPDX-License-Identifier: MIT
"""What the kernel clears when a thread ends is not where libc keeps its id: from glibc 2.43 on.

Done here by hand, on any glibc, for the main thread and another one. Both keep their ids, what is
in the words stays, and the kernel clears the right one when the thread's time has come.

live: rounds=60
"""
import ctypes
import sys
import threading

try:
    import pyheap
except ImportError:
    import plain as pyheap

libc = ctypes.CDLL(None, use_errno=True)
SET_TID_ADDRESS, PR_GET_TID_ADDRESS = 218, 40


def cleared():
    address = ctypes.c_void_p()
    assert libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0) == 0
    return address.value


class Elsewhere:
    """Within it the kernel clears another word for the calling thread."""

    def __enter__(self):
        self.word = ctypes.c_int(2)
        self.before = cleared()
        libc.syscall(SET_TID_ADDRESS, ctypes.c_void_p(ctypes.addressof(self.word)))
        return self

    def holds(self):
        return cleared() == ctypes.addressof(self.word) and self.word.value == 2

    def __exit__(self, *_):
        libc.syscall(SET_TID_ADDRESS, ctypes.c_void_p(self.before))


def other(turn, done, held):
    """One check for each round."""
    with Elsewhere() as word:
        known = threading.get_native_id()
        while turn.acquire() and held[0]:
            held[0] = word.holds() and threading.get_native_id() == known
            done.release()


def main(rounds):
    turn, done, held = threading.Semaphore(0), threading.Semaphore(0), [True]
    thread = threading.Thread(target=other, args=(turn, done, held))
    with Elsewhere() as word:
        thread.start()
        for r in range(rounds):
            pyheap.epoch()
            turn.release()
            done.acquire()
            assert word.holds() and held[0], r
            print(r, flush=True)
    held[0] = False
    turn.release()
    thread.join()
    print("joined")


main(int(sys.argv[1]))
