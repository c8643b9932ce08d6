# SPDX-License-Identifier: MIT
"""Signals that come while the main thread waits in a call: each ends it, and nothing else does.

Epochs are taken all the time meanwhile, not only here. A thread sends a signal when it has seen
the main thread in the call, so that in plain Python none can come too early.

live: rounds=140 options=--every,5ms
"""
import ctypes
import errno
import os
import random
import select
import signal
import sys
import threading
import time

try:
    import pyheap
except ImportError:
    import plain as pyheap

PATIENCE = 60
libc = ctypes.CDLL(None, use_errno=True)
with_gil = ctypes.PyDLL(None)
sys.setswitchinterval(1000)  # the GIL is given away where a thread waits, and nowhere else
NUMBERS = {"read": 0, "write": 1, "poll": 7, "nanosleep": 35, "pause": 34, "msgrcv": 70,
           "futex": 202, "rt_sigtimedwait": 128, "rt_sigsuspend": 130, "clock_nanosleep": 230,
           "epoll_wait": 232, "pselect6": 270, "select": 23, "ppoll": 271, "epoll_pwait": 281}


class Wake(Exception):
    pass


class Sender(threading.Thread):
    """Sends a signal to the process when the main thread waits in one of some calls."""

    def __init__(self, rng):
        super().__init__(daemon=True)
        self.rng = rng
        self.wanted = threading.Semaphore(0)
        self.sent = self.done = 0
        self.job = None
        self.path = f"/proc/self/task/{os.getpid()}/syscall"

    def ask(self, calls, number, then=None, thread=False):
        self.job = ({str(NUMBERS[call]) for call in calls}, number, then, thread)
        self.wanted.release()

    def waiting(self, calls):
        """The GIL is kept meanwhile: an epoch with this file open could not be recovered, since
        the process that it is of will be gone."""
        buffer = ctypes.create_string_buffer(100)
        fd = with_gil.open(self.path.encode(), os.O_RDONLY)
        with_gil.read(fd, buffer, 99)
        with_gil.close(fd)
        return buffer.value.decode().split()[0] in calls

    def await_call(self, calls):
        deadline = time.monotonic() + PATIENCE
        while not self.waiting(calls):
            if time.monotonic() > deadline:
                fail(f"the main thread does not wait in {calls}")
            time.sleep(0.0003)

    def run(self):
        while True:
            self.wanted.acquire()
            calls, number, then, thread = self.job
            self.await_call(calls)
            time.sleep(self.rng.choice((0, 0.001, 0.004, 0.012)) * self.rng.random())
            self.await_call(calls)
            self.sent += 1
            if thread:
                signal.pthread_kill(threading.main_thread().ident, number)
            else:
                os.kill(os.getpid(), number)
            if then:
                then()
            self.done += 1


def fail(text):
    print("wrong:", text, flush=True)
    os._exit(1)


class Test:
    def __init__(self, rng):
        self.rng = rng
        self.handled = 0
        self.action = None
        self.step = 0
        self.name = "start"
        self.sender = Sender(rng)
        self.sender.start()
        for number in (signal.SIGALRM, signal.SIGUSR1):
            signal.signal(number, self.on_signal)
        threading.Thread(target=self.watch, daemon=True).start()
        self.reader, self.writer = os.pipe()
        self.idle, self.idle_writer = os.pipe()
        self.epoll = select.epoll()
        self.epoll.register(self.idle, select.EPOLLIN)

    def on_signal(self, number, frame):
        self.handled += 1
        if self.action:
            self.action()

    def watch(self):
        """A step that does not end has lost its signal."""
        while True:
            step, slept = self.step, 0
            while step == self.step:
                time.sleep(0.1)
                slept += 1
                if slept > PATIENCE * 10:
                    fail(f"a signal is lost in {self.name}")

    def wake(self):
        raise Wake

    # ---- calls of Python's, which are made again until the handler changes something ------

    def woken(self, call, *calls):
        self.action = self.wake
        try:
            self.ask(*calls)
            call()
            fail(f"{self.name} has ended by itself")
        except Wake:
            pass

    def ask(self, *calls, then=None):
        number = self.rng.choice((signal.SIGALRM, signal.SIGUSR1))
        self.sender.ask(calls, number, then, thread=self.rng.random() < 0.3)

    def read(self):
        self.action = lambda: os.write(self.writer, b"x")
        self.ask("read")
        assert os.read(self.reader, 10) == b"x"

    def write(self):
        self.action = lambda: os.read(self.reader, 1 << 20)
        os.set_blocking(self.writer, False)
        try:
            while os.write(self.writer, bytes(4096)):
                pass
        except BlockingIOError:
            pass
        os.set_blocking(self.writer, True)
        self.ask("write")
        assert os.write(self.writer, bytes(4096)) == 4096
        assert os.read(self.reader, 1 << 20) == bytes(4096)

    def write_all(self):
        """Much to a pipe that is read slowly: no signal comes, so all of it is written."""
        size = 1 << 18

        def drain():
            left = size
            while left:
                time.sleep(0.001)
                left -= len(os.read(self.reader, 20000))

        drainer = threading.Thread(target=drain)
        drainer.start()
        data = ctypes.create_string_buffer(size)
        written = libc.write(self.writer, data, size)
        if written != size:
            fail(f"{written} of {size} bytes were written")
        drainer.join()
        self.pause()

    def write_part(self):
        """A signal ends a write of which the pipe has taken a part."""
        self.ask("write")
        size = 1 << 18
        written = libc.write(self.writer, ctypes.create_string_buffer(size), size)
        if not 0 < written < size:
            fail(f"{written} of {size} bytes were written until the signal came")
        while written:
            written -= len(os.read(self.reader, 1 << 20))

    def acquire(self):
        lock = threading.Lock()
        lock.acquire()
        self.action = lock.release
        self.ask("futex")
        assert lock.acquire(timeout=self.rng.choice((-1, 1000)))

    def sleep(self):
        self.woken(lambda: time.sleep(1000), "clock_nanosleep", "pselect6", "select")

    def select(self):
        self.woken(lambda: select.select([self.idle], [], []), "select", "pselect6")

    def poll(self):
        self.woken(select.poll().poll, "poll")

    def epoll_poll(self):
        self.woken(self.epoll.poll, "epoll_wait")

    def epoll_timeout(self):
        self.woken(lambda: self.epoll.poll(1000), "epoll_wait")

    def sigwait(self):
        self.woken(lambda: signal.sigwaitinfo({signal.SIGUSR2}), "rt_sigtimedwait")

    def pause(self):
        self.ask("pause")
        signal.pause()

    # ---- libc's own, which must end with EINTR, once, and not earlier -----------------------

    def ends(self, call, name):
        self.ask(name)
        ctypes.set_errno(0)
        result = call()
        if (result, ctypes.get_errno()) != (-1, errno.EINTR):
            fail(f"{self.name} gave {result}, errno {ctypes.get_errno()}")
        if not self.sender.sent > self.sent_before:
            fail(f"{self.name} has ended before the signal came")

    def c_read(self):
        self.ends(lambda: libc.read(self.idle, ctypes.create_string_buffer(1), 1), "read")

    def c_pause(self):
        self.ends(libc.pause, "pause")

    def c_poll(self):
        self.ends(lambda: libc.poll(None, 0, -1), "poll")

    def c_ppoll(self):
        self.ends(lambda: libc.ppoll(None, 0, (ctypes.c_long * 2)(1000, 0), None), "ppoll")

    def c_epoll(self):
        self.ends(lambda: libc.epoll_wait(self.epoll.fileno(), ctypes.create_string_buffer(12), 1,
                                          -1), "epoll_wait")

    def c_sigsuspend(self):
        self.ends(lambda: libc.sigsuspend(ctypes.create_string_buffer(128)), "rt_sigsuspend")

    def c_sem_wait(self):
        sem = ctypes.create_string_buffer(64)
        libc.sem_init(sem, 0, 0)
        self.ends(lambda: libc.sem_wait(sem), "futex")

    def c_syscall(self):
        self.ends(lambda: libc.syscall(ctypes.c_long(7), None, ctypes.c_long(0),
                                       ctypes.c_long(-1)), "poll")

    def c_restarts(self):
        """SA_RESTART: the handler runs and the call goes on."""
        for number in (signal.SIGALRM, signal.SIGUSR1):
            signal.siginterrupt(number, False)
        buf = ctypes.create_string_buffer(1)

        def give():
            time.sleep(0.002)
            os.write(self.writer, b"y")

        self.ask("read", then=give)
        result = libc.read(self.reader, buf, 1)
        if (result, buf.raw) != (1, b"y"):
            fail(f"a restarted read gave {result}, {buf.raw}")
        for number in (signal.SIGALRM, signal.SIGUSR1):
            signal.siginterrupt(number, True)

    def run(self, name):
        self.step += 1
        self.name, self.action = name, None
        handled, self.sent_before = self.handled, self.sender.sent
        getattr(self, name)()
        deadline = time.monotonic() + PATIENCE
        while self.handled == handled or self.sender.done == self.sent_before:
            if time.monotonic() > deadline:
                fail(f"{name}: handled {self.handled - handled} of "
                     f"{self.sender.done - self.sent_before}")
            time.sleep(0.0002)
        if (self.handled, self.sender.done) != (handled + 1, self.sent_before + 1):
            fail(f"{name}: handled {self.handled - handled}, "
                 f"sent {self.sender.done - self.sent_before}")


def main(rounds):
    test = Test(random.Random(7))
    names = ["read", "write", "write_all", "write_part", "acquire", "sleep", "select",
             "poll", "epoll_poll",
             "epoll_timeout", "sigwait", "pause", "c_read", "c_pause", "c_poll", "c_ppoll",
             "c_epoll", "c_sigsuspend", "c_sem_wait", "c_syscall", "c_restarts"]
    for r in range(rounds):
        test.run(names[r % len(names)])
        pyheap.epoch()
        if r % 20 == 0:
            print("round", r, flush=True)
    print("each handled, once")


main(int(sys.argv[1]))
