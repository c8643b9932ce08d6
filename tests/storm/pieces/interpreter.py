# SPDX-License-Identifier: MIT
"""What is in the interpreter's and its modules' memory."""
import collections
import contextlib
import contextvars
import csv
import ctypes
import datetime
import decimal
import functools
import gc
import hashlib
import heapq
import importlib
import importlib.util
import io
import itertools
import json
import operator
import pickle
import random
import re
import sqlite3
import struct
import sys
import threading
import time
import tracemalloc
import weakref

from .base import anew, end, libc, piece, start, try_import


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
    me.say(made, Node.dead, sorted(finalized), len(table))


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
        module = try_import(name)
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


@piece
def places(me):
    """Epochs where nobody expects them: in finalizers, hooks, callbacks, imports, handlers."""
    class Odd:
        def __init__(self, *_):
            self.n = 0

        def __del__(self):
            me.epoch()

        def __eq__(self, other):
            me.epoch()
            return self is other

        def __hash__(self):
            me.epoch()
            return 1

        def __reduce__(self):
            me.epoch()
            return Odd, (1,)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            me.epoch()
            return True

        def __set_name__(self, *_):
            me.epoch()

        def __index__(self):
            me.epoch()
            return 3

        def keys(self):
            me.epoch()
            return ["a"]

        def __getitem__(self, key):
            me.epoch()
            return 5

    class Log(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            me.epoch()
            return len(data)

    def progress():
        me.epoch()

    def hook(collect, info):
        if collect == "stop":
            mine.append(1)
    mine = []
    with open(f"{me.name}_module.py", "w", opener=anew) as file:
        file.write("import sys\nsys.modules['pieces.interpreter'].IMPORTED()\nvalue = 7\n")
    globals()["IMPORTED"] = me.epoch
    base = sqlite3.connect(":memory:", check_same_thread=False)
    base.set_progress_handler(progress, 500)
    base.create_aggregate("odd", 1, type("Sum", (), {
        "__init__": lambda self: setattr(self, "n", 0),
        "step": lambda self, n: (me.epoch(), setattr(self, "n", self.n + n))[0],
        "finalize": lambda self: self.n}))
    gc.callbacks.append(hook)
    lock = threading.RLock()
    for r in me.rounds:
        with Odd() as odd:
            assert {odd: 1}[odd] == 1 and odd in [Odd(), odd]
            assert isinstance(pickle.loads(pickle.dumps(odd)), Odd)
            type("Made", (), {"attribute": odd})
            assert b"%d" % 3 * operator.index(odd) == b"333" and dict(**odd) == {"a": 5}
            io.BufferedWriter(Log(), 10).write(b"x" * 100)
            raise ValueError
        weakref.finalize(Odd(), me.epoch)
        got = base.execute("with recursive c(n) as (select 1 union all select n + 1 from c "
                           "where n < 20) select odd(n) from c").fetchone()[0]
        text = re.sub("a", lambda m: me.epoch() or "b", "banana")
        value = json.loads('[{"a": 1}, {"b": 2}]', object_hook=lambda d: (me.epoch(), d)[1])
        with lock, contextlib.suppress(KeyError):
            sys.modules.pop(f"{me.name}_module", None)
            spec = importlib.util.spec_from_file_location("odd", f"{me.name}_module.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        yield
        me.say(r, got, text, value, module.value)
    gc.callbacks.remove(hook)


@piece
def collector(me):
    """The collector at every few allocations; what it looks at comes and goes."""
    old = gc.get_threshold()
    for r in me.rounds:
        gc.set_threshold(me.rng.randint(5, 500), 2, 2)
        made = [[{"n": n}, (n, [n])] for n in range(me.rng.randint(100, 3000))]
        for a, b in zip(made, made[1:]):
            a.append(b)
        made[-1].append(made)
        yield
        me.say(r, len(made), sum(one[0]["n"] for one in made))
    gc.set_threshold(*old)


@piece
def inner(me):
    """Another interpreter in this one."""
    module = try_import("_interpreters") or try_import("_xxsubinterpreters")
    if module is None or sys.version_info < (3, 10):
        for r in me.rounds:
            yield
        return
    number = module.create()
    for r in me.rounds:
        module.run_string(number, f"""if True:
            import json, collections
            kept = globals().get("kept") or collections.deque(maxlen=50)
            kept.append(json.dumps([{r}] * 100))
            assert json.loads(kept[0])[0] == max(0, {r} - 49)
            """)
        yield
        me.say(r)
    module.destroy(number)


@piece
def encrypted(me):
    """Both ends of TLS in memory, in the midst of their handshake and after it."""
    ssl = try_import("ssl")
    for r in me.rounds:
        if not ssl or r % 5:
            yield
            continue
        ends = []
        a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
        for server in (False, True):
            about = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
            about.check_hostname = False
            about.verify_mode = ssl.CERT_NONE
            about.maximum_version = ssl.TLSVersion.TLSv1_2
            about.set_ciphers("aNULL:@SECLEVEL=0")
            ends.append(about.wrap_bio(*((a, b) if server else (b, a)), server_side=server))
        waiting = set(ends)
        while waiting:
            for end in list(waiting):
                try:
                    end.do_handshake()
                    waiting.discard(end)
                except ssl.SSLWantReadError:
                    pass
                yield
        text = me.rng.randbytes(me.rng.randint(1, 9000))
        ends[0].write(text)
        yield
        got = b""
        while len(got) < len(text):
            got += ends[1].read(5000)
        assert got == text
        me.say(r, len(got), ends[1].version())


@piece
def monitored(me):
    """sys.monitoring, over epochs."""
    watch = getattr(sys, "monitoring", None)
    calls = collections.Counter()

    def work(n):
        return n if n < 2 else work(n - 1) + work(n - 2)
    if not watch or watch.get_tool(4):
        watch = None
    if watch:
        watch.use_tool_id(4, "storm")
        watch.register_callback(4, watch.events.PY_START, lambda *_: calls.update(["start"]))
        watch.register_callback(4, watch.events.PY_RETURN, lambda *_: calls.update(["return"]))
    for r in me.rounds:
        if watch:
            watch.set_local_events(4, work.__code__, watch.events.PY_START | watch.events.PY_RETURN)
        before = sum(calls.values())
        total = work(6)
        yield
        total += work(5)
        if watch:
            assert sum(calls.values()) - before == 2 * (25 + 15)
            watch.set_local_events(4, work.__code__, 0)
        me.say(r, total)
    if watch:
        watch.free_tool_id(4)
