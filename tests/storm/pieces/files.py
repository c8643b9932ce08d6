# SPDX-License-Identifier: MIT
"""Files and other descriptors."""
import bz2
import collections
import csv
import ctypes
import fcntl
import functools
import gzip
import hashlib
import lzma
import os
import select
import socket
import sqlite3
import struct
import tempfile
import threading
import time
import zipfile
import zlib

from .base import PATIENCE, anew, end, libc, piece, start, try_import


@piece
def appended(me):
    """Files in every mode that makes them grow, read back while they do, over duplicates too."""
    name = f"{me.name}.data"
    modes = me.rng.choice(["w+", "a+", "r+b", "w+b0", "ab0"])
    buffering = 0 if "0" in modes else me.rng.choice([-1, 7, 5000]) if "b" in modes else -1
    file = open(name, modes.rstrip("0"), buffering, opener=anew)
    twin = os.dup(file.fileno())
    reader = open(name, "rb")
    written, got = 0, 0
    for r in me.rounds:
        text = f"line {r} " + "x" * me.rng.randrange(300) + "\n"
        file.write(text.encode() if "b" in modes else text)
        written += len(text)
        if me.rng.random() < 0.5:
            file.flush()
            os.write(twin, b"twin\n")
            written += 5
            yield
            got += len(reader.read(written - got))
            assert got == written == os.fstat(twin).st_size
        if modes in ("w+", "w+b0", "r+b") and me.rng.random() < 0.3:
            file.seek(0)
            file.read(3)
            file.seek(0, 2)
        yield
        me.say(r, written)
    file.close()
    os.close(twin)
    reader.close()


@piece
def cut(me):
    """A file that the program itself makes shorter, and one that it writes anew while open."""
    log = open(f"{me.name}.log", "w+")
    status = open(f"{me.name}.status", "w+")
    length = 0
    for r in me.rounds:
        log.write(f"entry {r}\n")
        length += len(f"entry {r}\n")
        if me.rng.random() < 0.2:
            log.flush()
            log.seek(0)
            log.truncate()
            length = 0
        status.seek(0)
        status.truncate()
        status.write(f"round {r}\n" * me.rng.randint(1, 4))
        status.flush()
        yield
        log.flush()
        assert os.fstat(log.fileno()).st_size == length
        status.seek(0)
        me.say(r, length, status.readline().strip())
    log.close()
    status.close()


@piece
def temporary(me):
    """Files without a name, of every kind."""
    files = []
    for r in me.rounds:
        kind = me.rng.choice([tempfile.TemporaryFile, tempfile.NamedTemporaryFile,
                              functools.partial(tempfile.SpooledTemporaryFile, 5000)])
        file = kind()
        data = b"%d " % r * me.rng.randint(1, 5000)
        file.write(data)
        files.append((file, data))
        yield
        for file, data in files:
            file.seek(0)
            assert file.read() == data
        if len(files) > 4:
            files.pop(me.rng.randrange(4))[0].close()
        me.say(r, len(data))


@piece
def compressed(me):
    """Streams mid-way, into memory and into files that are open."""
    packers = [zlib.compressobj(6), bz2.BZ2Compressor(1), lzma.LZMACompressor(preset=0)]
    packed = [b"", b"", b""]
    raw = open(f"{me.name}.gz", "wb")
    file = gzip.GzipFile("", "wb", fileobj=raw, mtime=0)
    data = b""
    for r in me.rounds:
        part = bytes(me.rng.choices(b"abcdef", k=500))
        data += part
        file.write(part)
        for n, packer in enumerate(packers):
            packed[n] += packer.compress(part)
        yield
    file.close()
    raw.close()
    for n, (packer, unpack) in enumerate(zip(packers, (zlib, bz2, lzma))):
        assert unpack.decompress(packed[n] + packer.flush()) == data
    assert gzip.open(f"{me.name}.gz").read() == data
    me.say(len(data), hashlib.md5(data).hexdigest())


@piece
def pipes(me):
    """Pipes with bytes in them, threads that wait at them."""
    read, write = os.pipe()
    back_read, back_write = os.pipe()
    fcntl.fcntl(write, 1031, me.rng.choice([4096, 65536, 262144]))

    def echo():
        while data := os.read(read, 1000):
            os.write(back_write, data)
        os.close(back_write)
    thread = start(echo)
    for r in me.rounds:
        data = me.rng.randbytes(me.rng.randint(1, 3000))
        os.write(write, data)
        yield
        got = b""
        while len(got) < len(data):
            got += os.read(back_read, len(data) - len(got))
        assert got == data
        me.say(r, len(got))
    os.close(write)
    end(thread)
    assert os.read(back_read, 1) == b""
    os.close(read)
    os.close(back_read)


@piece
def sockets(me):
    """Socket pairs of each type, with what waits in them."""
    kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]
    pairs = [socket.socketpair(socket.AF_UNIX, kind) for kind in kinds]
    pairs[0][1].settimeout(PATIENCE)
    pairs[1][1].setblocking(False)
    for r in me.rounds:
        sent = []
        for here, _ in pairs:
            sent.append([me.rng.randbytes(me.rng.randint(1, 500))
                         for _ in range(me.rng.randint(1, 4))])
            for message in sent[-1]:
                here.sendall(message)
        yield
        for (_, there), messages in zip(pairs, sent):
            if there.type & 15 == socket.SOCK_STREAM:
                want = b"".join(messages)
                got = b""
                while len(got) < len(want):
                    got += there.recv(len(want) - len(got))
                assert got == want
            else:
                assert [there.recv(1000) for _ in messages] == messages
        me.say(r, *(len(messages) for messages in sent))
    for pair in pairs:
        for one in pair:
            one.close()


@piece
def events(me):
    """epoll over pipes, event and timer descriptors; a thread that waits in it."""
    event = libc.eventfd(0, os.O_NONBLOCK)
    timer = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK)
    read, write = os.pipe()
    poll = select.epoll()
    for fd in (event, timer, read):
        poll.register(fd, select.EPOLLIN)
    seen, more = collections.Counter(), threading.Semaphore(0)

    def wait():
        while True:
            for fd, _ in poll.poll(PATIENCE):
                if fd == timer:
                    seen["timer"] += struct.unpack("Q", os.read(fd, 8))[0]
                elif fd == event:
                    seen["event"] += struct.unpack("Q", os.read(fd, 8))[0]
                else:
                    data = os.read(fd, 1)
                    if not data:
                        return
                    seen["pipe"] += 1
                more.release()
    thread = start(wait)
    expected = collections.Counter()
    for r in me.rounds:
        what = me.rng.choice(["event", "timer", "pipe"])
        if what == "event":
            os.write(event, struct.pack("Q", 3))
        elif what == "pipe":
            os.write(write, b"x")
        else:
            libc.timerfd_settime(timer, 0, struct.pack("4q", 0, 0, 0, me.rng.randint(1, 10**7)),
                                 None)
        expected[what] += 3 if what == "event" else 1
        yield
        assert more.acquire(timeout=PATIENCE)
        assert seen == expected, (seen, expected)
        me.say(r, what)
    os.close(write)
    end(thread)
    for fd in (event, timer, read):
        os.close(fd)
    poll.close()


@piece
def odds(me):
    """Directories half listed, devices, memfds, locks of files, a descriptor without use."""
    null, dice, zero = (open(f"/dev/{n}", "r+b" if n == "null" else "rb", 0)
                        for n in ("null", "urandom", "zero"))
    locked = open(f"{me.name}.lock", "w")
    fcntl.flock(locked, fcntl.LOCK_EX)
    other = open(f"{me.name}.lock2", "w")
    fcntl.lockf(other, fcntl.LOCK_EX, 10, 5)
    memory = os.memfd_create("odds")
    root = os.open("/", os.O_RDONLY)
    path = os.open("/", os.O_PATH)
    for r in me.rounds:
        os.write(memory, b"%08d" % r)
        listing = os.scandir(root)
        first = next(listing).name
        yield
        rest = [entry.name for entry in listing]
        assert first not in rest and len(rest) > 5
        assert null.write(b"x") == 1 and len(dice.read(9)) == 9 and zero.read(3) == b"\0" * 3
        assert os.pread(memory, 8, r * 8) == b"%08d" % r
        assert os.stat("etc", dir_fd=path)
        with open(f"{me.name}.lock", "r") as again:
            try:
                fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
                raise AssertionError("the lock is gone")
            except BlockingIOError:
                me.say(r)
    for fd in (memory, root, path):
        os.close(fd)


@piece
def descriptors(me):
    """Duplicates and gaps, an epoll in an epoll, packets in a pipe, half-closed ends."""
    outer = select.epoll()
    packets = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    half = socket.socketpair()
    half[0].shutdown(socket.SHUT_WR)
    pair = os.pipe()
    inner = select.epoll()
    inner.register(pair[0], select.EPOLLIN)
    outer.register(inner.fileno(), select.EPOLLIN)
    high = fcntl.fcntl(pair[1], fcntl.F_DUPFD_CLOEXEC, me.rng.randint(50, 900))
    for r in me.rounds:
        sizes = [me.rng.randint(1, 200) for _ in range(3)]
        for size in sizes:
            os.write(packets[1], b"p" * size)
        os.write(high, b"y")
        half[1].send(b"%d" % r)
        copy = os.dup(packets[0])
        assert half[1].recv(1) == b""
        yield
        assert outer.poll(PATIENCE) == [(inner.fileno(), select.EPOLLIN)]
        assert inner.poll(PATIENCE) == [(pair[0], select.EPOLLIN)]
        assert os.read(pair[0], 9) == b"y" and not outer.poll(0)
        assert [len(os.read(copy, 999)) for _ in sizes] == sizes
        assert half[0].recv(99) == b"%d" % r
        assert not os.get_inheritable(high) and not os.get_blocking(packets[0])
        os.close(copy)
        me.say(r, high, sizes)
    for fd in (high, *pair, *packets):
        os.close(fd)
    for one in (*half, inner, outer):
        one.close()


@piece
def grown(me):
    """Files that grow by other calls than write: truncate, holes, pwrite, sendfile."""
    file = os.open(f"{me.name}.grown", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    size = 0
    source = os.memfd_create("source")
    os.write(source, bytes(range(256)) * 16)
    for r in me.rounds:
        how = me.rng.randrange(5)
        n = me.rng.randint(1, 3000)
        if how == 0:
            os.ftruncate(file, size + n)
        elif how == 1:
            os.lseek(file, size + n - 1, os.SEEK_SET)
            os.write(file, b"!")
        elif how == 2:
            os.pwritev(file, [b"a" * (n - 1), b"b"], size)
        elif how == 3:
            os.lseek(file, size, os.SEEK_SET)
            assert os.sendfile(file, source, 0, n) == n
        else:
            os.posix_fallocate(file, size, n)
        size += n
        yield
        assert os.fstat(file).st_size == size, (how, size)
        me.say(r, size, os.pread(file, 1, size - 1))
    for fd in (file, source):
        os.close(fd)


@piece
def database(me):
    """sqlite3 in memory: transactions, cursors mid-way, functions of ours."""
    base = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    base.create_function("twice", 1, lambda n: 2 * n)
    base.execute("create table t (n integer primary key, s text)")
    cursor = base.execute("with recursive c(n) as (select 1 union all select n + 1 from c) "
                          "select n from c")
    for r in me.rounds:
        base.execute("begin")
        base.executemany("insert into t values (?, ?)",
                         [(r * 50 + n, "x" * me.rng.randrange(200)) for n in range(50)])
        yield
        base.execute("commit" if r % 3 else "rollback")
        found = base.execute("select count(*), sum(twice(n)), sum(length(s)) from t").fetchone()
        me.say(r, *found, next(cursor)[0])
    base.close()


@piece
def changed_by_name(me):
    """Files that are opened for each change: lines appended, a state that is read and rewritten or replaced."""
    log, state, count = f"{me.name}.lines", f"{me.name}.state", f"{me.name}.count"
    for r in me.rounds:
        with open(log, "a") as file:
            file.write(f"{r}\n")
        yield
        value = 0
        if os.path.exists(state):
            with open(state) as file:
                value = int(file.read())
        with open(state + ".new", "x") as file:
            file.write(str(value + r))
        yield
        os.replace(state + ".new", state)
        lines = []
        if os.path.exists(count):
            with open(count) as file:
                lines = file.readlines()
        yield
        with open(count, "w") as file:
            file.writelines([*lines, "x\n"])
        yield
        with open(log) as file:
            me.say(r, value, len(file.readlines()), len(lines))


@piece
def overwritten(me):
    """Bytes in the middle of a file that is held open, and of one that is opened for it."""
    size = me.rng.choice([1000, 100_000, 3_000_000])
    wanted = bytearray(size)
    for suffix in ("held", "named"):
        with open(f"{me.name}.{suffix}", "wb") as file:
            file.write(wanted)
    held = os.open(f"{me.name}.held", os.O_RDWR)
    for r in me.rounds:
        at, what = me.rng.randrange(size - 100), me.rng.randbytes(100)
        wanted[at:at + 100] = what
        os.pwrite(held, what, at)
        yield
        with open(f"{me.name}.named", "r+b") as file:
            file.seek(at)
            file.write(what)
        yield
        with open(f"{me.name}.named", "rb") as file:
            assert file.read() == wanted == os.pread(held, size, 0)
        me.say(r, hashlib.sha256(wanted).hexdigest())
    os.close(held)


@piece
def directories(me):
    """Made, filled, renamed, emptied and removed."""
    for r in me.rounds:
        name = f"{me.name}.d{r % 3}"
        os.makedirs(f"{name}/a/b")
        yield
        for n in range(3):
            with open(f"{name}/a/{n}", "x") as file:
                file.write(str(n))
        os.symlink("b", f"{name}/a/link")
        yield
        os.rename(f"{name}/a", f"{name}/c")
        yield
        me.say(r, [os.path.exists(f"{name}/c/{n}") for n in range(4)])
        for n in range(3):
            os.remove(f"{name}/c/{n}")
        yield
        os.remove(f"{name}/c/link")
        os.rmdir(f"{name}/c/b")
        os.rmdir(f"{name}/c")
        yield
        os.rmdir(name)


@piece
def copied(me):
    """Bytes that the kernel copies into the middle of a file, or makes zero there."""
    size = 200_000
    with open(f"{me.name}.data", "wb") as file:
        file.write(bytes(size))
    wanted = bytearray(size)
    source = me.rng.randbytes(5000)
    with open(f"{me.name}.source", "wb") as file:
        file.write(source)
    held = os.open(f"{me.name}.data", os.O_RDWR)
    for r in me.rounds:
        at, n = me.rng.randrange(size - 5000), me.rng.randint(1, 5000)
        how = me.rng.randrange(3)
        with open(f"{me.name}.source", "rb") as file:
            assert os.pread(held, size, 0) == wanted
            if how == 0:
                assert os.copy_file_range(file.fileno(), held, n, 0, at) == n
            elif how == 1:
                os.lseek(held, at, os.SEEK_SET)
                assert os.sendfile(held, file.fileno(), 0, n) == n
            elif libc.fallocate(held, 3, ctypes.c_long(at), ctypes.c_long(n)) != 0:
                os.pwrite(held, bytes(n), at)
        wanted[at:at + n] = source[:n] if how < 2 else bytes(n)
        yield
        me.say(r, hashlib.sha256(wanted).hexdigest())
    os.close(held)


@piece
def half_read(me):
    """Files that are read bit by bit: lines, rows, members of archives, in odd encodings."""
    with open(f"{me.name}.text", "w", encoding="utf-16") as file:
        file.writelines(f"{n},häßlich €\n" for n in range(5000))
    with open(f"{me.name}.gz", "wb") as file:
        file.write(gzip.compress(b"".join(b"%d\n" % n for n in range(5000)), mtime=0))
    with zipfile.ZipFile(f"{me.name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("a"), "".join(f"{n}\n" for n in range(5000)))
    lines = open(f"{me.name}.text", encoding="utf-16")
    rows = csv.reader(open(f"{me.name}.text", encoding="utf-16"))
    packed = gzip.open(f"{me.name}.gz", "rt")
    archive = zipfile.ZipFile(f"{me.name}.zip")
    member = archive.open("a")
    for r in me.rounds:
        line = lines.readline()
        if r % 5 == 4:
            place = lines.tell()
            lines.readline()
            yield
            lines.seek(place)
        yield
        me.say(r, repr(line), next(rows)[0], next(packed).strip(), member.readline())
        if r % 1000 == 999:
            break
    for one in (lines, packed, member, archive):
        one.close()


@piece
def tables(me):
    """Tables of gdbm and ndbm, which are mapped, held open; and a shelf."""
    kinds = [kind for kind in map(try_import, ("dbm.gnu", "dbm.ndbm")) if kind]
    held = [kind.open(f"{me.name}.{n}", "n") for n, kind in enumerate(kinds)]
    kept = {}
    for r in me.rounds:
        key, value = f"{me.rng.randrange(200)}", me.rng.randbytes(me.rng.randint(0, 700))
        kept[key] = value
        for table in held:
            table[key] = value
        yield
        for table in held:
            assert len(table.keys()) == len(kept) and all(table[k] == v for k, v in kept.items())
            if r % 9 == 8:
                del table[key]
        if r % 9 == 8:
            del kept[key]
        me.say(r, len(kept))
    for n, table in enumerate(held):
        table.close()
    for name in os.listdir():
        if name.startswith(f"{me.name}."):
            os.remove(name)  # what is in them depends on what their memory was before
