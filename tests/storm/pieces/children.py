# SPDX-License-Identifier: MIT
"""Child processes, and signals, which the main thread alone may drive."""
import ctypes
import multiprocessing.sharedctypes
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from .base import PATIENCE, end, libc, main_piece, piece, start

FORKS_CRASH = sys.version_info[:3] == (3, 13, 0)  # by themselves, now and then


@piece
def commands(me):
    """Programs that are executed; one that an epoch has lost is run once more."""
    for r in me.rounds:
        if r % 10:
            yield
            continue
        while True:
            yield
            done = subprocess.run(["/bin/sh", "-c", "read x; echo $x $x"], input=f"{r}\n",
                                  capture_output=True, text=True)
            if done.returncode != -signal.SIGKILL:
                break
        assert (done.returncode, done.stdout) == (0, f"{r} {r}\n"), done
        me.say(r, done.stdout.strip())


@piece
def forks(me):
    """Children by fork, which tell something and end."""
    data = {n: str(n) for n in range(1000)}
    for r in me.rounds:
        if r % 4 or FORKS_CRASH:
            yield
            continue
        while True:
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    os.close(read)
                    more = [str(n) * 3 for n in range(2000)]
                    os.write(write, b"%d" % (len(more) + len(data)))
                finally:
                    os._exit(7)
            os.close(write)
            yield
            assert select.select([read], [], [], PATIENCE)[0], f"child {pid} hangs"
            told = os.read(read, 100)
            os.close(read)
            status = os.waitpid(pid, 0)[1]
            if status != signal.SIGKILL:
                break
        assert (status, told) == (7 << 8, b"3000"), (status, told)
        me.say(r, told.decode())


@piece
def spawned(me):
    """Children of posix_spawn and of system."""
    for r in me.rounds:
        yield
        if r % 10:
            continue
        while True:
            pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 9"], {})
            yield
            if (status := os.waitpid(pid, 0)[1]) != signal.SIGKILL:
                break
        assert status == 9 << 8
        while (status := os.system("exit 8")) == signal.SIGKILL:
            yield
        assert status == 8 << 8
        me.say(r)


@piece
def workers(me):
    """multiprocessing: a process by fork, a pipe to it, memory and a lock shared with it."""
    fork = multiprocessing.get_context("fork")
    shared, lock = multiprocessing.sharedctypes.RawArray("i", 1000), fork.Lock()

    def work(r, end):
        shared[r % 1000] = r
        end.send([os.getppid(), r * r])
    for r in me.rounds:
        if r % 8 or FORKS_CRASH:
            yield
            continue
        with lock:
            while True:
                here, there = fork.Pipe(duplex=False)
                worker = fork.Process(target=work, args=(r, there))
                worker.start()
                there.close()
                yield
                try:
                    told = here.recv()
                except EOFError:
                    told = None
                worker.join(PATIENCE)
                here.close()
                if worker.exitcode != -signal.SIGKILL:
                    break
        assert (worker.exitcode, told) == (0, [os.getpid(), r * r]), (worker.exitcode, told)
        assert shared[r % 1000] == r
        me.say(r, told[1])


@piece
def waiting_for_signals(me):
    """A thread that has a signal blocked, and takes it by sigwait, with a timeout, by a descriptor."""
    how = me.rng.choice(["wait", "timed", "descriptor"])
    number = signal.SIGRTMIN + me.rng.randint(5, 20)
    mask = struct.pack("Q", 1 << number - 1)
    ready, got = threading.Semaphore(0), threading.Semaphore(0)
    over = []

    def take():
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        fd = libc.signalfd(-1, ctypes.create_string_buffer(mask), os.O_CLOEXEC)
        assert fd >= 0
        ready.release()
        while not over:
            if how == "wait":
                assert signal.sigwait([number]) == number
            elif how == "timed":
                assert signal.sigtimedwait([number], PATIENCE).si_signo == number
            else:
                assert struct.unpack_from("I", os.read(fd, 128))[0] == number
            got.release()
        os.close(fd)
    thread = start(take)
    assert ready.acquire(timeout=PATIENCE)
    for r in me.rounds:
        yield
        over.extend([1] * (r == len(me.rounds) - 1))
        signal.pthread_kill(thread.ident, number)
        yield
        assert got.acquire(timeout=PATIENCE)
        me.say(r)
    end(thread)


@main_piece
def signals(me):
    """Handlers, masks, what is pending, sent to the process and to a thread."""
    got = []
    old = signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
    for r in me.rounds:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        yield
        assert len(got) == r, (len(got), r)
        number = signal.sigtimedwait([signal.SIGUSR2], PATIENCE).si_signo
        assert number == signal.SIGUSR2
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1, signal.SIGUSR2])
        yield
        assert len(got) == r + 1, (len(got), r)
        me.say(r)
    signal.signal(signal.SIGUSR1, old)


def ticking(me, timer, number, seconds, every):
    """An interval timer: that it ticks is waited for in each round that `every` divides."""
    ticks = []
    old = signal.signal(number, lambda *_: ticks.append(1))
    signal.setitimer(timer, seconds, seconds)
    for r in me.rounds:
        seen = len(ticks)
        yield
        limit = time.monotonic() + PATIENCE
        while r % every == 0 and len(ticks) == seen:
            assert time.monotonic() < limit, "no tick"
        assert signal.getitimer(timer)[1] > 0
        me.say(r)
    signal.setitimer(timer, 0)
    signal.signal(number, old)


@main_piece
def alarms(me):
    """A timer of the time that passes."""
    return ticking(me, signal.ITIMER_REAL, signal.SIGALRM, 0.003, every=1)


@main_piece
def computed_alarms(me):
    """A timer of the CPU time that the program has taken."""
    return ticking(me, signal.ITIMER_VIRTUAL, signal.SIGVTALRM, 0.005, every=10)


@main_piece
def woken_by_signals(me):
    """A descriptor that signals are written to, as a loop has it that waits for both."""
    here, there = socket.socketpair()
    for end in (here, there):
        end.setblocking(False)
    old = signal.signal(signal.SIGWINCH, lambda *_: None)
    before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
    for r in me.rounds:
        signal.raise_signal(signal.SIGWINCH)
        yield
        assert select.select([here], [], [], PATIENCE)[0]
        assert bytes([signal.SIGWINCH]) in here.recv(4096)
        me.say(r)
    signal.set_wakeup_fd(before)
    signal.signal(signal.SIGWINCH, old)
    for end in (here, there):
        end.close()
