# SPDX-License-Identifier: MIT
"""pieces.py - what random programs are composed of; program.py says what a piece must keep to"""
import asyncio
import bz2
import collections
import concurrent.futures
import contextvars
import csv
import ctypes
import datetime
import decimal
import fcntl
import functools
import gc
import gzip
import hashlib
import heapq
import importlib
import io
import itertools
import json
import lzma
import mmap
import os
import pickle
import queue
import random
import re
import select
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import weakref
import zlib

try:
    import numpy
except ImportError:
    numpy = None

ALL, ANYWHERE, MAIN = {}, {}, {}
PATIENCE = 120  # seconds that nothing here takes
libc = ctypes.CDLL(None, use_errno=True)


def piece(function, where=ANYWHERE):
    ALL[function.__name__] = where[function.__name__] = function
    return function


def main_piece(function):
    """One that only the main thread may drive: signals."""
    return piece(function, MAIN)


def start(function, *args, daemon=True):
    thread = threading.Thread(target=function, args=args, daemon=daemon)
    thread.start()
    return thread


def anew(path, flags):
    """An opener. What an earlier life has left in a file that was not open then is cut off."""
    return os.open(path, flags | os.O_CREAT | os.O_TRUNC, 0o644)


def end(thread):
    thread.join(PATIENCE)
    assert not thread.is_alive(), "a thread hangs"


# ---- threads -----------------------------------------------------------------------------

@piece
def locks(me):
    """Locks held over epochs, with threads that wait for them."""
    for r in me.rounds:
        lock = me.rng.choice([threading.Lock, threading.RLock])()
        got = []

        def want(n):
            with lock:
                got.append(n)
        with lock:
            waiting = [start(want, n) for n in range(me.rng.randint(1, 4))]
            yield
            assert not got
            if lock.acquire(False):
                assert "RLock" in repr(lock)
                lock.release()
        for thread in waiting:
            end(thread)
        me.say(r, sorted(got))


@piece
def timed(me):
    """Waits with a timeout: never shorter, and woken when they must be."""
    for r in me.rounds:
        condition, event, flag = threading.Condition(), threading.Event(), []
        took = []

        def wait(seconds):
            before = time.monotonic()
            done = event.wait(seconds)
            took.append((done, time.monotonic() - before, seconds))

        def wait_for():
            with condition:
                took.append((condition.wait_for(lambda: flag, PATIENCE), 0, 0))
        short = me.rng.uniform(0, 0.02)
        waiting = [start(wait, short), start(wait_for)]
        yield
        end(waiting[0])
        waiting.append(start(wait, PATIENCE))
        with condition:
            flag.append(1)
            condition.notify_all()
        yield
        event.set()
        for thread in waiting:
            end(thread)
        assert took[0][0] in (False, True) and len(took) == 3, took
        assert [done for done, *_ in took].count(False) == 1, took
        assert all(done or passed >= seconds for done, passed, seconds in took), took
        me.say(r, "woken")


@piece
def pipeline(me):
    """Threads that pass things on through queues."""
    first, second, third = queue.Queue(3), queue.SimpleQueue(), queue.PriorityQueue()

    def pass_on(source, sink, change):
        while (item := source.get()) is not None:
            sink.put(change(item))
        sink.put((10**9, None) if sink is third else None)
    threads = [start(pass_on, first, second, lambda n: n * n),
               start(pass_on, second, third, lambda n: (n, str(n)))]
    sent = []
    for r in me.rounds:
        for _ in range(me.rng.randint(0, 9)):
            sent.append(me.rng.randrange(1000))
            first.put(sent[-1])
        yield
    first.put(None)
    for thread in threads:
        end(thread)
    got = []
    while (item := third.get())[1] is not None:
        got.append(item[0])
    assert got == sorted(n * n for n in sent)
    me.say(len(got), sum(got))


@piece
def executor(me):
    """A pool of threads with work under way."""
    local = threading.local()

    def work(n):
        local.count = getattr(local, "count", 0) + 1
        time.sleep(n % 3 / 1000)
        return hashlib.sha256(b"%d" % n * 5000).hexdigest()[:8]
    with concurrent.futures.ThreadPoolExecutor(me.rng.randint(1, 4)) as pool:
        for r in me.rounds:
            futures = [pool.submit(work, r * 10 + n) for n in range(me.rng.randint(1, 6))]
            yield
            me.say(r, *(future.result(PATIENCE) for future in futures))


@piece
def threads_come_and_go(me):
    """Threads made and ended all the time, with values and numbers of their own."""
    local = threading.local()
    ids = threading.get_native_id(), os.getpid(), os.getppid(), threading.get_ident()

    def live(n, out):
        local.value = [n] * 10
        native = threading.get_native_id()
        time.sleep(n % 2 / 1000)
        assert native == threading.get_native_id() == threading.current_thread().native_id
        out.append(sum(local.value))
    for r in me.rounds:
        out = []
        threads = [start(live, n, out) for n in range(me.rng.randint(1, 8))]
        yield
        for thread in threads:
            end(thread)
        me.say(r, sorted(out))
        assert ids == (threading.get_native_id(), os.getpid(), os.getppid(),
                       threading.get_ident())


@piece
def for_good(me):
    """Daemons that wait for what never comes, and a barrier and semaphores for what does."""
    read, write = os.pipe()
    start(time.sleep, 10**6)
    start(os.read, read, 1)
    start(select.select, [read], [], [])
    start(queue.Queue().get)
    barrier, semaphore = threading.Barrier(3), threading.BoundedSemaphore(1)

    def meet():
        for _ in me.rounds:
            barrier.wait(PATIENCE)
            with semaphore:
                time.sleep(0)
    threads = [start(meet), start(meet)]
    for r in me.rounds:
        yield
        barrier.wait(PATIENCE)
    for thread in threads:
        end(thread)
    assert barrier.n_waiting == 0 and not barrier.broken
    os.close(write)
    me.say("met")


@piece
def timers(me):
    """threading.Timer, some of them cancelled."""
    for r in me.rounds:
        fired = []
        some = [threading.Timer(me.rng.uniform(0, 0.01), fired.append, [n]) for n in range(3)]
        late = threading.Timer(PATIENCE, fired.append, ["late"])
        for timer in (*some, late):
            timer.daemon = True
            timer.start()
        yield
        late.cancel()
        for timer in (*some, late):
            end(timer)
        assert sorted(fired) == [0, 1, 2]
        me.say(r)


@piece
def loop(me):
    """An asyncio loop in a thread: tasks, timers, queues, streams, an executor."""
    loop = asyncio.new_event_loop()
    thread = start(loop.run_forever)
    here, there = socket.socketpair()

    async def echo():
        reader, writer = await asyncio.open_connection(sock=there)
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    async def talk():
        return await asyncio.open_connection(sock=here)

    async def ask(n):
        writer.write(b"line %d\n" % n)
        await asyncio.sleep(n % 3 / 1000)
        answer = await asyncio.wait_for(reader.readline(), PATIENCE)
        sum_ = await loop.run_in_executor(None, sum, range(n))
        try:
            await asyncio.wait_for(asyncio.sleep(PATIENCE), 0.002)
        except asyncio.TimeoutError:
            return answer, sum_

    def call(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop)
    echoing = call(echo())
    reader, writer = call(talk()).result(PATIENCE)
    for r in me.rounds:
        future = call(ask(r))
        yield
        me.say(r, *future.result(PATIENCE))
    loop.call_soon_threadsafe(writer.close)
    yield
    echoing.result(PATIENCE)
    call(loop.shutdown_default_executor()).result(PATIENCE)
    loop.call_soon_threadsafe(loop.stop)
    end(thread)
    loop.close()


@piece
def big_stack(me):
    """Deep in a recursion on threads' stacks."""
    def dive(depth):
        if depth:
            return dive(depth - 1) + 1
        me.epoch()
        time.sleep(0.001)
        return 0
    for r in me.rounds:
        depth = me.rng.randint(1, 600)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            future = pool.submit(dive, depth)
            yield
            me.say(r, future.result(PATIENCE))


# ---- the interpreter ---------------------------------------------------------------------

@piece
def generators(me):
    """Generators in generators, coroutines, asynchronous generators, suspended."""
    def count(n):
        try:
            for i in range(n):
                if (sent := (yield i)) is not None:
                    n += sent
        finally:
            closed.append(n)

    def nest(depth, n):
        if depth:
            return (yield from nest(depth - 1, n))
        yield from count(n)
        return n

    async def produce(n):
        for i in range(n):
            yield i * i

    class Pause:
        def __await__(self):
            yield "pause"

    async def consume(n):
        total = 0
        async for i in produce(n):
            await Pause()
            total += i
        return total
    closed = []
    for r in me.rounds:
        deep, coroutine = nest(me.rng.randint(0, 80), 10), consume(4)
        got = [next(deep)]
        assert coroutine.send(None) == "pause"
        yield
        got += [deep.send(None) for _ in range(5)]
        yield
        for _ in range(3):
            assert coroutine.send(None) == "pause"
        try:
            coroutine.send(None)
        except StopIteration as stop:
            me.say(r, got, stop.value)
        deep.close()
    me.say(closed)


@piece
def exceptions(me):
    """Exceptions being handled, with causes and tracebacks."""
    def fail(depth):
        if depth:
            fail(depth - 1)
        raise ValueError(depth)
    for r in me.rounds:
        depth = me.rng.randint(0, 20)
        try:
            try:
                fail(depth)
            except ValueError as error:
                yield
                raise KeyError(r) from error
            finally:
                me.epoch()
        except KeyError as error:
            yield
            frames, at = 0, error.__cause__.__traceback__
            while at:
                frames, at = frames + 1, at.tb_next
            assert frames == depth + 2
            me.say(r, repr(error), repr(error.__cause__), frames)


@piece
def recursion(me):
    """An epoch at the bottom, through calls of C between those of Python."""
    def through_c(depth):
        return functools.reduce(lambda a, _: a + dive(depth - 1), [0], 1) if depth else dive(0)

    def dive(depth):
        if depth <= 0:
            me.epoch()
            return 1
        return sorted([depth, 0], key=lambda n: n and through_c(depth - 1))[1] and 1
    for r in me.rounds:
        me.say(r, dive(me.rng.randint(1, 30)))
        yield


@piece
def garbage(me):
    """Cycles, weak references, finalizers, resurrections."""
    class Node:
        dead = 0
        kept = []

        def __del__(self):
            Node.dead += 1
            if Node.dead % 7 == 0:
                Node.kept.append(self)
    finalized, made = [], 0
    table = weakref.WeakValueDictionary()
    for r in me.rounds:
        nodes = [Node() for _ in range(me.rng.randint(1, 50))]
        for a, b in zip(nodes, nodes[1:] + nodes[:1]):
            a.next, a.data = b, [bytearray(me.rng.randrange(400))]
        made += len(nodes)
        table[r] = nodes[0]
        weakref.finalize(nodes[-1], finalized.append, r)
        reference = weakref.ref(nodes[0])
        yield
        assert reference() is nodes[0] is table[r]
        del nodes, a, b
        gc.collect()
        me.epoch()
        Node.kept.clear()
        gc.collect()
        if me.rng.random() < 0.1:
            gc.freeze()
    while Node.dead < made:  # of two collections at a time one does nothing
        gc.collect()
        yield
    me.say(made, Node.dead, finalized, len(table))


@piece
def traced_memory(me):
    """tracemalloc, on and off."""
    for r in me.rounds:
        if not tracemalloc.is_tracing():
            tracemalloc.start(me.rng.randint(1, 5))
        data = [bytes(me.rng.randrange(3000)) for _ in range(20)]
        yield
        if r % 4 == 3:
            size = tracemalloc.get_traced_memory()[0]
            assert size > 0
            assert tracemalloc.get_object_traceback(data[0]) is not None or not data[0]
            tracemalloc.stop()
        me.say(r, sum(map(len, data)))
    tracemalloc.stop()


@piece
def context(me):
    """Context variables in contexts that are kept."""
    variable = contextvars.ContextVar("variable", default=-1)
    kept = []
    for r in me.rounds:
        token = variable.set(r)
        kept.append(contextvars.copy_context())
        variable.reset(token)
        yield
        assert variable.get() == -1
        me.say(r, *(c.run(variable.get) for c in kept[-5:]))


@piece
def from_c(me):
    """Callbacks from C, with epochs in them; memory of libc's."""
    compare_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int),
                                    ctypes.POINTER(ctypes.c_int))
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]

    def compare(a, b):
        if me.rng.random() < 0.05:
            me.epoch()
        return a[0] - b[0]
    callback = compare_type(compare)
    blocks = []
    for r in me.rounds:
        numbers = [me.rng.randrange(1000) for _ in range(30)]
        array = (ctypes.c_int * 30)(*numbers)
        size = me.rng.choice([10, 1000, 100000, 1000000])
        block = libc.malloc(size)
        ctypes.memset(block, r % 256, size)
        blocks.append((block, size, r % 256))
        yield
        libc.qsort(array, 30, 4, callback)
        assert list(array) == sorted(numbers)
        if len(blocks) > 5:
            block, size, value = blocks.pop(me.rng.randrange(5))
            assert ctypes.string_at(block, size) == bytes([value]) * size
            libc.free(block)
        me.say(r, array[0], array[29])


@piece
def allocations(me):
    """Blocks of every size that come, grow, shrink and go."""
    blocks = {}
    for r in me.rounds:
        for _ in range(8):
            key = me.rng.randrange(40)
            size = int(10 ** me.rng.uniform(0, 6.7))
            if key in blocks and me.rng.random() < 0.5:
                data, value = blocks[key]
                assert data.count(value) == len(data)
                del data[size:]
                data.extend(bytes([value]) * (size - len(data)))
            else:
                value = me.rng.randrange(256)
                blocks[key] = bytearray([value]) * size, value
            if me.rng.random() < 0.2:
                blocks.pop(me.rng.choice(sorted(blocks)))
        yield
        for data, value in blocks.values():
            assert data.count(value) == len(data)
        me.say(r, sum(len(data) for data, _ in blocks.values()))


@piece
def objects(me):
    """Dicts, sets, deques, strings, classes and code that grow and shrink; hashes stay."""
    data, words, line = {}, set(), collections.deque(maxlen=100)
    hashes = [hash("a"), hash(b"b"), hash(("c", 1.5)), id(data)]
    for r in me.rounds:
        for n in range(100):
            key = me.rng.randrange(500)
            data[key] = f"value {key * n}" * (n % 5)
            words.add(data[key])
            line.append((key, n))
            if n % 3 == 0:
                data.pop(me.rng.choice(sorted(data)))
        name = f"made_{r}"
        space = {}
        exec(compile(f"class {name}:\n def f(self, x): return x * {r} + 1", name, "exec"), space)
        one = space[name]()
        order = list(words)
        yield
        assert list(words) == order
        assert hashes == [hash("a"), hash(b"b"), hash(("c", 1.5)), id(data)]
        me.say(r, one.f(3), len(data), sorted(data.items())[:2], line[0])
        if len(words) > 2000:
            words.clear()


@piece
def states(me):
    """Objects with state in C, mid-way."""
    dice = random.Random(me.rng.random())
    product = itertools.product(range(9), repeat=8)
    words = re.finditer(r"\w+", "lorem ipsum dolor sit amet " * 20000)
    decoder = __import__("codecs").getincrementaldecoder("utf-8")()
    parser = __import__("xml.etree.ElementTree").etree.ElementTree.XMLPullParser(["end"])
    parser.feed("<all>")
    unpacker = struct.iter_unpack("<ih", bytes(range(240)) * 1000)
    rows = csv.reader(io.StringIO("a,b\n" * 20000))
    encoder = json.JSONEncoder().iterencode([{"a": n} for n in range(20000)])
    pickled = io.BytesIO(b"".join(pickle.dumps(n) for n in range(20000)))
    unpickler = pickle.Unpickler(pickled)
    digests = [hashlib.new(name) for name in ("md5", "sha256", "sha3_256", "blake2b")]
    heap = []
    text = "häßlich €".encode()
    numbers, value = decimal.Context(prec=40), decimal.Decimal(2)
    for r in me.rounds:
        value = numbers.add(numbers.divide(2, value), r)
        heapq.heappush(heap, dice.random())
        parser.feed(f"<one n='{r}'>")
        for digest in digests:
            digest.update(dice.randbytes(500))
        part = decoder.decode(text[r % 14:r % 14 + 1])
        yield
        parser.feed("</one>")
        (_, element), = parser.read_events()
        me.say(r, element.get("n"), next(product), next(words).group(), repr(part),
               next(unpacker), next(rows), next(encoder), unpickler.load(), heap[0],
               value, digests[r % 4].hexdigest()[:8])


@piece
def imports(me):
    """Modules that are loaded late, with libraries of their own."""
    names = ["_bisect", "audioop", "cmath", "_statistics", "unicodedata", "_zoneinfo", "_lsprof",
             "colorsys", "imaplib", "html.parser", "mailbox", "plistlib", "difflib", "tomllib",
             "curses", "_elementtree", "pyexpat", "ssl", "_ctypes_test", "_testbuffer",
             "termios", "syslog", "resource", "grp", "pwd", "_crypt", "spwd", "dbm.gnu", "nis",
             "zoneinfo", "fractions", "ipaddress", "uuid", "secrets", "turtle", "wave", "pdb"]
    me.rng.shuffle(names)
    for r in me.rounds:
        name = names[r % len(names)]
        try:
            module = importlib.import_module(name)
        except ImportError:
            module = None
        yield
        me.say(r, name, module is not None)
        if name in ("colorsys", "plistlib", "fractions", "difflib"):
            importlib.reload(module)


@piece
def called(me):
    """A profile function over epochs."""
    calls = collections.Counter()

    def profile(frame, event, arg):
        if frame.f_code is work.__code__:
            calls[event] += 1

    def work(n):
        return n if n < 2 else work(n - 1) + work(n - 2)

    def run(out):
        sys.setprofile(profile)
        out.append(work(8))
        me.epoch()
        out.append(work(7))
        sys.setprofile(None)
    for r in me.rounds:
        out = []
        thread = start(run, out)
        yield
        end(thread)
        me.say(r, out, calls["call"], calls["return"])


@piece
def clocks(me):
    """Clocks go on and never back; sleeps are never short."""
    names = ["monotonic", "perf_counter", "process_time", "thread_time", "monotonic_ns"]
    before = [getattr(time, name)() for name in names]
    for r in me.rounds:
        seconds = me.rng.uniform(0, 0.01)
        began = time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
        time.sleep(seconds)
        assert time.monotonic() - began[0] >= seconds
        assert (datetime.datetime.now(datetime.timezone.utc) - began[1]).total_seconds() > 0
        yield
        after = [getattr(time, name)() for name in names]
        assert all(a >= b for a, b in zip(after, before)), (before, after)
        before = after
        me.say(r)


# ---- memory outside of the heap ----------------------------------------------------------

@piece
def mappings(me):
    """Anonymous mappings, private and shared: written, advised, resized, unmapped."""
    maps = []
    for r in me.rounds:
        size = me.rng.randint(1, 300) * mmap.PAGESIZE
        flags = me.rng.choice([mmap.MAP_PRIVATE, mmap.MAP_SHARED]) | mmap.MAP_ANONYMOUS
        area = mmap.mmap(-1, size, flags=flags)
        value = bytes([r % 255 + 1])
        at = me.rng.randrange(size - 100)
        area[at:at + 100] = value * 100
        maps.append((area, at, value))
        yield
        for area, at, value in maps:
            assert area[at:at + 100] == value * 100
        if len(maps) > 6:
            area, at, value = maps.pop(me.rng.randrange(6))
            if me.rng.random() < 0.5 and flags & mmap.MAP_PRIVATE:
                area.madvise(mmap.MADV_DONTNEED)
            area.close()
        if me.rng.random() < 0.2:
            private = next((m for m in maps), None)
            if private:
                private[0].resize(len(private[0]) * 2)
        me.say(r, len(maps), sum(len(area) for area, *_ in maps))


@piece
def mapped_file(me):
    """A file that is mapped shared: what is written once is there."""
    with open(f"{me.name}.map", "w+b") as file:
        file.truncate(len(me.rounds) * 1000 + 1)
        with mmap.mmap(file.fileno(), 0) as shared, \
                mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as seen:
            for r in me.rounds:
                data = hashlib.sha256(b"%d" % r).digest() * 30
                shared[r * 1000:r * 1000 + 960] = data
                yield
                assert seen[r * 1000:r * 1000 + 960] == data
                if r % 5 == 0:
                    shared.flush()
                me.say(r, data[:4].hex())


if numpy:
    @piece
    def arrays(me):
        """NumPy arrays, computed in place, resized and freed; a memmap."""
        disk = numpy.memmap(f"{me.name}.npy", dtype=float, mode="w+", shape=(len(me.rounds), 500))
        kept = collections.deque(maxlen=5)
        value = numpy.arange(250000.0).reshape(500, 500)
        dice = numpy.random.default_rng(me.rng.randrange(1000))
        for r in me.rounds:
            value[1:-1, 1:-1] += 0.1 * (value[2:, 1:-1] + value[:-2, 1:-1]
                                        - 2 * value[1:-1, 1:-1])
            kept.append(dice.random(me.rng.randint(1, 300000)))
            sums = [array.sum() for array in kept]
            disk[r] = value[r % 500]
            yield
            assert sums == [array.sum() for array in kept]
            assert (disk[r] == value[r % 500]).all()
            me.say(r, repr(value.sum()), repr(kept[-1][0]), repr(sums[-1]))


# ---- files and other descriptors ---------------------------------------------------------

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
        me.say(r, *base.execute("select count(*), sum(twice(n)), sum(length(s)) from t").fetchone(),
               next(cursor)[0])
    base.close()


# ---- children ----------------------------------------------------------------------------

@piece
def commands(me):
    """Programs that are executed; one that an epoch has lost is run once more."""
    code = "import sys; print(sys.stdin.read()[::-1], len(sys.argv))"
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
        if r % 4:
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


# ---- signals: in the main thread ---------------------------------------------------------

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
