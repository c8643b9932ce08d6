# SPDX-License-Identifier: MIT
"""Descriptors that the kernel makes up, each with something in it at every epoch: pipes of other
sizes, with packets, open several times, hung up; socketpairs of all types with several messages;
timerfd, signalfd, inotify, eventfd as a semaphore, and an epoll that watches them.

live: rounds=60
"""
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct

import parts

libc = ctypes.CDLL(None, use_errno=True)
SIZE = 16384
TFD_NONBLOCK = SFD_NONBLOCK = EFD_NONBLOCK = IN_NONBLOCK = os.O_NONBLOCK
IN_CREATE, IN_DELETE = 0x100, 0x200


def call(function, *args):
    result = getattr(libc, function)(*args)
    assert result >= 0, (function, os.strerror(ctypes.get_errno()))
    return result


class Pipes:
    def __init__(self):
        self.r, self.w = os.pipe()
        fcntl.fcntl(self.w, 1031, SIZE)  # F_SETPIPE_SZ
        # Further descriptions of both ends, not duplicates: their flags are their own.
        self.r2 = os.open(f"/proc/self/fd/{self.r}", os.O_RDONLY | os.O_NONBLOCK)
        self.w2 = os.open(f"/proc/self/fd/{self.w}", os.O_WRONLY)
        self.packets = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
        # One whose writer is gone: what is in it is still to be read, then it ends.
        self.hung, writer = os.pipe()
        os.write(writer, b"last words " * 100)
        os.close(writer)

    def fill(self, r):
        os.write(self.w, b"one %d " % r)
        os.write(self.w2, b"two %d " % r * 500)
        for i in range(5):
            os.write(self.packets[1], b"%d" % r * (i + 1))

    def check(self, r):
        assert fcntl.fcntl(self.r, 1032) == SIZE  # F_GETPIPE_SZ
        assert os.get_blocking(self.r) and not os.get_blocking(self.r2)
        whole = b"one %d " % r + b"two %d " % r * 500
        half = len(whole) // 2
        assert os.read(self.r2, half) == whole[:half]
        assert os.read(self.r, 65536) == whole[half:]
        for i in range(5):
            assert os.read(self.packets[0], 65536) == b"%d" % r * (i + 1), "a packet"
        if r < 10:
            assert os.read(self.hung, 110) == b"last words " * 10
        else:
            assert os.read(self.hung, 1) == b"", "a pipe without a writer ends"


class Sockets:
    def __init__(self):
        self.pairs = [(kind, socket.socketpair(socket.AF_UNIX, kind)) for kind in
                      (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)]
        # More than fits into an ordinary socket, and one half closed.
        self.large, self.other = socket.socketpair()
        self.large.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400000)
        self.half, self.closed = socket.socketpair()
        self.closed.sendall(b"before the end")
        self.closed.shutdown(socket.SHUT_WR)
        self.orphan, gone = socket.socketpair()
        gone.sendall(b"x" * 1000)
        gone.close()

    def fill(self, r):
        for _, (a, b) in self.pairs:
            for i in range(1, 6):
                a.send(b"%d>" % r * i)
                b.send(b"<%d" % r * i)
        self.large.sendall(b"%7d" % r * 30000)

    def check(self, r):
        for kind, (a, b) in self.pairs:
            assert a.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == kind
            for i in range(1, 6):
                for end, mark in ((b, b"%d>"), (a, b"<%d")):
                    wanted = mark % r * i
                    size = len(wanted) if kind == socket.SOCK_STREAM else 4096
                    assert end.recv(size) == wanted, (kind, i)
        received = b"".join(iter(lambda: self.other.recv(10000) if self.waiting() else b"", b""))
        assert received == b"%7d" % r * 30000, len(received)
        if r == 0:
            assert self.half.recv(100) == b"before the end"
        assert self.half.recv(1) == b"", "the other end was shut down"
        self.half.send(b"!")
        assert self.closed.recv(9) == b"!"
        assert self.orphan.recv(10) == (b"x" * 10 if r < 100 else b"")

    def waiting(self):
        return select.select([self.other], [], [], 0)[0]


class Events:
    def __init__(self):
        self.semaphore = call("eventfd", 0, 1 | EFD_NONBLOCK)
        self.idle = call("eventfd", 2**31, EFD_NONBLOCK)
        os.write(self.idle, struct.pack("Q", 2**40))
        # A timer far away, one that has expired, and one that ticks all the time.
        self.far = self.timer(0, 10**6)
        self.expired = self.timer(0, 0)
        self.ticking = self.timer(0.001, 0.001)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        mask = (ctypes.c_ulong * 16)(1 << (signal.SIGUSR1 - 1))
        self.signals = call("signalfd", -1, mask, SFD_NONBLOCK)
        self.notify = call("inotify_init1", IN_NONBLOCK)
        os.mkdir("watched")
        os.mkdir("other")
        # Numbers with gaps: 1 is removed, so the watches are 2 and 3.
        first = call("inotify_add_watch", self.notify, b"other", IN_CREATE)
        call("inotify_rm_watch", self.notify, first)
        self.watches = [call("inotify_add_watch", self.notify, b"watched", IN_CREATE | IN_DELETE),
                        call("inotify_add_watch", self.notify, b"other", IN_CREATE)]
        os.read(self.notify, 4096)
        self.epoll = select.epoll()
        for fd in (self.semaphore, self.signals, self.notify, self.expired):
            self.epoll.register(fd, select.EPOLLIN)
        # A member that cannot come back: a network socket, closed at the other end afterwards.
        self.network = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.network.bind(("127.0.0.1", 0))
        self.epoll.register(self.network, select.EPOLLIN)

    def timer(self, interval, value):
        fd = call("timerfd_create", 1, TFD_NONBLOCK)
        self.set_timer(fd, interval, value)
        return fd

    @staticmethod
    def set_timer(fd, interval, value):
        spec = struct.pack("qqqq", int(interval), int(interval % 1 * 1e9), int(value),
                           int(value % 1 * 1e9))
        call("timerfd_settime", fd, 0, spec, None)

    def fill(self, r):
        os.write(self.semaphore, struct.pack("Q", 3))
        self.set_timer(self.expired, 0, 1e-6)
        select.select([self.expired], [], [])

    def ready(self):
        return {fd for fd, _ in self.epoll.poll(0)} - {self.network.fileno()}

    def check(self, r):
        assert self.ready() == {self.semaphore, self.expired}, self.ready()
        for _ in range(3):
            assert os.read(self.semaphore, 8) == struct.pack("Q", 1), "a semaphore"
        assert struct.unpack("Q", os.read(self.idle, 8))[0] == 2**31 + 2**40
        os.write(self.idle, struct.pack("Q", 2**31 + 2**40))
        assert os.read(self.expired, 8) == struct.pack("Q", 1), "expired once"
        assert not select.select([self.far], [], [], 0)[0]
        select.select([self.ticking], [], [])
        assert struct.unpack("Q", os.read(self.ticking, 8))[0] >= 1
        assert self.ready() == set()
        signal.raise_signal(signal.SIGUSR1)
        assert self.ready() == {self.signals}
        assert struct.unpack_from("I", os.read(self.signals, 128))[0] == signal.SIGUSR1
        # What an attempt that was killed has left, and the events about that.
        for name in f"watched/{r}", "other/file":
            if os.path.exists(name):
                os.remove(name)
        if self.ready():
            os.read(self.notify, 4096)
        open(f"watched/{r}", "w").close()
        os.remove(f"watched/{r}")
        open("other/file", "w").close()
        assert self.ready() == {self.notify}
        events, at = [], 0
        raw = os.read(self.notify, 4096)
        while at < len(raw):
            wd, mask, _, length = struct.unpack_from("iIII", raw, at)
            events.append((wd, mask, raw[at + 16:at + 16 + length].rstrip(b"\0")))
            at += 16 + length
        os.remove("other/file")
        name = b"%d" % r
        assert events == [(self.watches[0], IN_CREATE, name), (self.watches[0], IN_DELETE, name),
                          (self.watches[1], IN_CREATE, b"file")], events


def main():
    them = [Pipes(), Sockets(), Events()]
    parts.go(them)
    print("end")


main()
