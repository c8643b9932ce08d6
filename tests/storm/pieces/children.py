# SPDX-License-Identifier: MIT
"""Child processes, and signals, which the main thread alone may drive."""
import os
import select
import signal
import subprocess
import sys
import threading
import time

from .base import PATIENCE, main_piece, piece


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
        if r % 4 or sys.version_info[:3] == (3, 13, 0):  # whose children crash by themselves
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


@main_piece
def alarms(me):
    """An interval timer that ticks, and one that is due."""
    ticks = []
    old = signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    for r in me.rounds:
        seen = len(ticks)
        yield
        limit = time.monotonic() + PATIENCE
        while len(ticks) == seen:
            assert time.monotonic() < limit, "no tick"
            time.sleep(0.001)
        assert signal.getitimer(signal.ITIMER_REAL)[1] > 0
        me.say(r)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)
