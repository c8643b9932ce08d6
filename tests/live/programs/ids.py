# SPDX-License-Identifier: MIT
"""Ids of process, threads, parent, group and session stay what they were, and every call that
takes one reaches what it names.

live: rounds=60
"""
import ctypes
import multiprocessing
import os
import queue
import resource
import signal
import sys
import threading

try:
    import pyheap
except ImportError:
    import plain as pyheap

libc = ctypes.CDLL(None, use_errno=True)
SYS_IOPRIO_GET, SYS_PIDFD_OPEN, SYS_KCMP, SYS_GETTID = 252, 434, 312, 186


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def read_own_memory(pid):
    """process_vm_readv of some bytes that this process has."""
    source = ctypes.create_string_buffer(b"remembered", 10)
    target = ctypes.create_string_buffer(10)
    from_, to = Vector(ctypes.addressof(source), 10), Vector(ctypes.addressof(target), 10)
    n = libc.process_vm_readv(pid, ctypes.byref(to), 1, ctypes.byref(from_), 1, 0)
    assert n == 10, os.strerror(ctypes.get_errno())
    return target.raw


class Worker(threading.Thread):
    """Says who it is when it is asked."""

    def __init__(self):
        super().__init__(daemon=True)
        self.asked, self.told = queue.Queue(), queue.Queue()

    def run(self):
        while self.asked.get():
            self.told.put((threading.get_native_id(), libc.syscall(SYS_GETTID), libc.gettid(),
                           os.getpid()))

    def who(self):
        self.asked.put(True)
        return self.told.get()


def outside():
    """What the program was started in. The reference run has no keeper: nothing is printed."""
    return os.getppid(), os.getpgrp(), os.getsid(0)


def check_process(pid):
    assert os.getpid() == pid == threading.get_native_id() == threading.main_thread().native_id
    assert libc.getpid() == libc.gettid() == libc.syscall(SYS_GETTID) == pid
    assert os.getpgid(pid) == os.getpgid(0) == os.getpgrp()
    assert os.getsid(pid) == os.getsid(0)
    assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)
    os.sched_setaffinity(pid, os.sched_getaffinity(0))
    assert os.sched_getscheduler(pid) == os.sched_getscheduler(0)
    assert os.sched_getparam(pid) == os.sched_getparam(0)
    os.sched_rr_get_interval(pid)
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0))
    assert os.getpriority(os.PRIO_PGRP, os.getpgrp()) == os.getpriority(os.PRIO_PGRP, 0)
    assert libc.syscall(SYS_IOPRIO_GET, 1, pid) == libc.syscall(SYS_IOPRIO_GET, 1, 0)
    assert (resource.prlimit(pid, resource.RLIMIT_NOFILE)
            == resource.getrlimit(resource.RLIMIT_NOFILE))
    assert libc.syscall(SYS_KCMP, pid, pid, 1, 0, 0) == 0
    assert read_own_memory(pid) == b"remembered"
    descriptor = os.pidfd_open(pid)
    signal.pidfd_send_signal(descriptor, 0)
    os.close(descriptor)


def check_paths(pid, worker):
    with open(f"/proc/{pid}/cmdline", "rb") as file, open("/proc/self/cmdline", "rb") as own:
        assert file.read() == own.read()
    assert os.stat(f"/proc/{pid}").st_uid == os.getuid()
    assert os.path.samefile(f"/proc/{pid}/exe", "/proc/self/exe")
    assert os.readlink(f"/proc/{pid}/cwd") == os.getcwd()
    assert os.readlink("/proc/self") == str(pid)
    assert set(os.listdir(f"/proc/{pid}/fd")) >= {"0", "1", "2"}
    assert os.access(f"/proc/{pid}/task/{worker}/comm", os.R_OK)
    assert os.path.exists(f"/proc/self/task/{worker}/stat")
    assert not os.path.exists(f"/proc/{pid}/task/{pid}/task/{pid}")
    with open(f"/proc/{worker}/comm") as file, open(f"/proc/self/task/{worker}/comm") as own:
        assert file.read() == own.read()


def own_files():
    """(ids and start time of stat, ids of status, as C code reads them) of the program itself."""
    with open(f"/proc/{os.getpid()}/stat") as file:
        text = file.read()
    rest = text[text.rindex(")") + 2:].split()
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    libc.fopen.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(libc.fopen(b"/proc/self/stat", b"re"))
    first = ctypes.create_string_buffer(50)
    assert libc.fread(first, 1, 49, stream) == 49 and libc.fclose(stream) == 0
    return ([int(n) for n in [text.split()[0], *rest[1:4], rest[19]]],
            [int(lines[key].split()[-1]) for key in ("Tgid", "Pid", "PPid")],
            int(first.value.split()[0]), len(rest), int(lines["Threads"]) > 0)


def check_files(pid, started):
    stat, status, from_c, fields, threads = own_files()
    assert stat == [pid, os.getppid(), os.getpgrp(), os.getsid(0), started], stat
    assert status == [pid, pid, os.getppid()] and from_c == pid, (status, from_c)
    assert fields == 50 and threads


def check_signals(pid):
    os.kill(pid, signal.SIGUSR1)
    assert signal.sigwaitinfo({signal.SIGUSR1}).si_pid == pid
    os.killpg(os.getpgrp(), 0)
    os.kill(-os.getpgrp(), 0)
    os.kill(os.getppid(), 0)


def in_child(parent, into):
    """In a child made by multiprocessing: it has its own pid and knows its parent's."""
    into.put((os.getppid() == parent, os.getpid() != parent,
              os.getpid() == threading.get_native_id() == multiprocessing.current_process().pid,
              multiprocessing.parent_process().pid == parent, os.kill(parent, 0) is None,
              os.getpgrp() == os.getpgid(parent)))


def check_children(pid):
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    child = context.Process(target=in_child, args=(pid, told))
    child.start()
    answer = told.get()
    child.join()
    assert all(answer) and child.exitcode == 0, answer
    # vfork, or fork: the parent's group is named by the number that the program knows.
    child = os.posix_spawn("/bin/true", ["true"], {}, setpgroup=os.getpgrp())
    assert os.waitpid(-os.getpgrp(), 0) == (child, 0)
    child = os.posix_spawn("/bin/true", ["true"], {})
    assert os.waitid(os.P_PGID, os.getpgrp(), os.WEXITED).si_pid == child


def main():
    rounds = int(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    pid, around, started = os.getpid(), outside(), own_files()[0][4]
    workers = [Worker() for _ in range(3)]
    for worker in workers:
        worker.start()
    first = [worker.who() for worker in workers]
    with open("program.pid", "w", encoding="ascii") as file:
        file.write(str(pid))
    for r in range(rounds):
        pyheap.epoch()
        assert outside() == around, (outside(), around)
        check_process(pid)
        for worker, known in zip(workers, first):
            assert worker.who() == known == (worker.native_id, worker.native_id, worker.native_id, pid)
            assert os.sched_getaffinity(worker.native_id) == os.sched_getaffinity(0)
            assert os.sched_getscheduler(worker.native_id) == os.sched_getscheduler(0)
        check_paths(pid, workers[0].native_id)
        check_files(pid, started)
        check_signals(pid)
        new = Worker()
        new.start()
        assert new.who()[0] not in {pid, *(w.native_id for w in workers)}
        new.asked.put(False)
        new.join()
        if r % 10 == 0:
            check_children(pid)
            with open("program.pid", encoding="ascii") as file:
                os.kill(int(file.read()), 0)
        if r == rounds // 2:  # from here on in a group of its own
            os.setpgid(pid, 0)
            assert os.getpgrp() == pid == os.getpgid(pid)
            around = outside()
    os.unlink("program.pid")
    print("ended")


main()
