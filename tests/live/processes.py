# SPDX-License-Identifier: MIT
"""processes - find, kill and examine the processes that a test started

A process is always killed through a pidfd that was opened while it was known to be ours, so
that a reused pid can never hit a stranger.
"""
import ctypes
import os
import pathlib
import signal
import time

PR_SET_CHILD_SUBREAPER = 36
HAS_LISTS = os.path.exists(f"/proc/self/task/{os.getpid()}/children")  # of children, by thread


def parent_of(pid):
    """The parent's pid, or None if there is no such process (any more)."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])


def children_of(pid):
    if not HAS_LISTS:
        return [int(p) for p in os.listdir("/proc") if p.isdigit() and parent_of(p) == pid]
    children = []
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += map(int, path.read_text().split())
        except OSError:  # the thread has ended
            pass
    return children


def adopt_orphans():
    """From now on a process whose parent dies becomes a child of ours."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children():
    """Kill what is left of a test: workers, for example, whose program was killed."""
    while children := children_of(os.getpid()):
        for pid in children:
            os.kill(pid, signal.SIGKILL)  # a child that nobody has waited for: the pid is its own
            os.waitpid(pid, 0)


def is_dead(pid):
    """Gone, or a zombie that holds nothing any more."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


class Target:
    """A process that may be killed."""

    def __init__(self, pid):
        self.pid = pid
        self.fd = os.pidfd_open(pid)

    def signal(self, number):
        """Send a signal; False if the process has gone already."""
        try:
            signal.pidfd_send_signal(self.fd, number)
            return True
        except ProcessLookupError:
            return False

    def wait_dead(self, seconds):
        deadline = time.monotonic() + seconds
        while not is_dead(self.pid):
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} does not die")
            time.sleep(0.001)

    def close(self):
        os.close(self.fd)


def program_of(keeper, seconds):
    """The program that a keeper (a Popen) started, as a Target; None if the keeper ended."""
    deadline = time.monotonic() + seconds
    while True:
        for pid in children_of(keeper.pid):
            try:
                target = Target(pid)
            except OSError:
                continue
            if parent_of(pid) == keeper.pid:
                return target
            target.close()
        if keeper.poll() is not None:
            return None
        if time.monotonic() > deadline:
            raise TimeoutError("the keeper starts no program")
        time.sleep(0.0002)


def describe(pid):
    """What the threads of a process are doing: for a person who looks at a test that hangs."""
    lines = []
    for name in ("cmdline", "stat"):
        try:
            lines.append(pathlib.Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ")
                         .decode(errors="replace").strip())
        except OSError as error:
            lines.append(str(error))
    try:
        threads = sorted(os.listdir(f"/proc/{pid}/task"), key=int)
    except OSError:
        threads = []
    for thread in threads:
        about = [f"thread {thread}"]
        for name in ("wchan", "syscall"):
            try:
                about.append(pathlib.Path(f"/proc/{pid}/task/{thread}/{name}").read_text().strip())
            except OSError as error:
                about.append(error.strerror)
        lines.append("  ".join(about))
    return "\n".join(lines)
