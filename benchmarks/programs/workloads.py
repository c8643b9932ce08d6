# SPDX-License-Identifier: MIT
"""Small programs in pure Python of the kinds that are commonly timed.

    workloads.py NAME REPETITIONS [SECONDS_BETWEEN_EPOCHS]     run it, report the time
    workloads.py NAME --calibrate SECONDS                      how many repetitions that takes

With epochs the first, whole one is taken before the clock starts, and the next after half of
the time between epochs, so that a run of N seconds has about N of them.
"""
import functools
import itertools
import json
import math
import pickle
import random
import re
import sys
import time

try:
    import pyheap
except ImportError:
    pyheap = None


def bodies():
    """Planets that attract each other: float arithmetic on lists."""
    planets = [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 40.0]]
    for i in range(1, 5):
        planets.append([[5.0 * i, 1.0, 0.1 * i], [0.1, 2.0 / i, 0.0], 0.01 * i])
    pairs = list(itertools.combinations(planets, 2))
    for _ in range(400):
        for (p, v, m), (q, w, n) in pairs:
            d = [p[k] - q[k] for k in range(3)]
            pull = 0.001 / (d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) ** 1.5
            for k in range(3):
                v[k] -= d[k] * n * pull
                w[k] += d[k] * m * pull
        for p, v, _ in planets:
            for k in range(3):
                p[k] += 0.001 * v[k]


class Packet:
    def __init__(self, kind, payload):
        self.kind, self.payload, self.hops = kind, payload, 0


class Task:
    def __init__(self, name, peers):
        self.name, self.peers, self.queue, self.done = name, peers, [], 0

    def run(self):
        while self.queue:
            packet = self.queue.pop()
            packet.hops += 1
            self.handle(packet)

    def handle(self, packet):
        self.done += 1
        if packet.hops < 6:
            self.peers[(packet.payload + packet.hops) % len(self.peers)].queue.append(packet)


class Worker(Task):
    def handle(self, packet):
        packet.payload = (packet.payload * 31 + 7) % 1009
        super().handle(packet)


def scheduler():
    """Tasks that send each other packets: method calls, attributes, short lists."""
    tasks = []
    for i in range(6):
        tasks.append((Worker if i % 2 else Task)(str(i), tasks))
    for i in range(500):
        tasks[i % 6].queue.append(Packet("work", i))
    while any(task.queue for task in tasks):
        for task in tasks:
            task.run()


class Variable:
    def __init__(self, value):
        self.value, self.constraints, self.stay = value, [], True


class Scale:
    def __init__(self, source, factor, target):
        self.source, self.factor, self.target = source, factor, target
        source.constraints.append(self)

    def apply(self):
        self.target.value = self.source.value * self.factor + 1
        return self.target


def constraints():
    """A chain of one-way constraints is planned and executed: small objects, graph walks."""
    chain = [Variable(i) for i in range(150)]
    for a, b in zip(chain, chain[1:]):
        Scale(a, 2, b)
    for value in range(12):
        chain[0].value = value
        todo, plan = [chain[0]], []
        while todo:
            for constraint in todo.pop().constraints:
                plan.append(constraint)
                todo.append(constraint.target)
        for constraint in plan:
            constraint.apply().value %= 10007


def json_text():
    """JSON, there and back."""
    records = [{"id": i, "name": f"record {i}", "tags": ["a", "b", str(i)], "x": i / 7,
                "nested": {"yes": True, "no": None}} for i in range(150)]
    for _ in range(3):
        records = json.loads(json.dumps(records))


@functools.lru_cache
def lines_of_log():
    chooser = random.Random(5)
    return [f"10.0.{chooser.randrange(256)}.{i % 256} - [{i:05}] \"GET /page/{i % 97}.html\" "
            f"{chooser.choice((200, 301, 404))} {chooser.randrange(9999)}" for i in range(400)]


def regular():
    """Regular expressions over a log."""
    pattern = re.compile(r'(\d+\.\d+\.\d+\.\d+) - \[(\d+)\] "GET (/\S+)" (\d{3}) (\d+)')
    sums = {}
    for line in lines_of_log():
        address, _, page, status, size = pattern.match(line).groups()
        sums[status] = sums.get(status, 0) + int(size)
        re.sub(r"\d+", "#", page)
    return sums


def tables():
    """Dictionaries and lists that come and go."""
    table = {}
    for i in range(3000):
        table[i * 7 % 1999] = [i, i + 1]
        if i % 3 == 0:
            table.pop(i % 500, None)
    return {k: v[::-1] for k, v in table.items() if k % 2}


def strings():
    """Strings put together, cut, compared."""
    parts = []
    for i in range(1200):
        parts.append("item-" + str(i) + ":" + "x" * (i % 40))
    text = ",".join(parts)
    return sorted(word.upper().replace("X", "y", 3) for word in text.split(","))


@functools.total_ordering
class Ranked:
    def __init__(self, key, name):
        self.key, self.name = key, name

    def __lt__(self, other):
        return self.key < other.key

    def __eq__(self, other):
        return self.key == other.key


def sorting():
    """Sorting objects, by their own comparison and by keys."""
    chooser = random.Random(3)
    objects = [Ranked(chooser.random(), str(i)) for i in range(800)]
    objects.sort()
    objects.sort(key=lambda o: o.name)
    return sorted(objects, key=lambda o: (len(o.name), -o.key))


def generators():
    """Recursive generators over a binary tree."""
    def tree(low, high):
        if low < high:
            middle = (low + high) // 2
            return tree(low, middle), middle, tree(middle + 1, high)
        return None

    def walk(node):
        if node:
            yield from walk(node[0])
            yield node[1]
            yield from walk(node[2])

    return sum(walk(tree(0, 1500)))


def tuples():
    """Tuples packed and unpacked."""
    a, b, c, d = 1, 2, 3, 4
    rows = []
    for i in range(6000):
        a, b, c, d = b, c, d, (a + i) & 1023
        rows.append((a, (b, c), d))
    return sum(x + y + z for x, (y, _), z in rows)


def queens():
    """Seven queens by permutations: sets, generators, big tuples."""
    return sum(1 for rows in itertools.permutations(range(7))
               if len({r + i for i, r in enumerate(rows)}) == 7
               and len({r - i for i, r in enumerate(rows)}) == 7)


def spectral():
    """The spectral norm of a matrix that is computed on the way."""
    n = 50

    def times(vector, at):
        return [sum(at(i, j) * vector[j] for j in range(n)) for i in range(n)]

    def a(i, j):
        return 1.0 / ((i + j) * (i + j + 1) // 2 + i + 1)

    u = [1.0] * n
    for _ in range(2):
        u = times(times(u, a), lambda i, j: a(j, i))
    return math.sqrt(sum(x * x for x in u))


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def plus(self, other):
        return Point(self.x + other.x, self.y + other.y)


def instances():
    """Instances of classes made and dropped."""
    total = Point(0, 0)
    kept = []
    for i in range(5000):
        total = total.plus(Point(i, -i))
        if i % 10 == 0:
            kept.append(total)
    return kept


def floats():
    """Mathematical functions of floats."""
    points = [(math.sin(i), math.cos(i) * 3, math.sin(i) ** 2 / 2) for i in range(2500)]
    lengths = [math.sqrt(x * x + y * y + z * z) for x, y, z in points]
    return max(x / n for (x, _, _), n in zip(points, lengths))


def pickling():
    """Pickle, there and back."""
    data = {"list": list(range(500)), "rows": [(i, str(i), {"k": i}) for i in range(300)]}
    for _ in range(4):
        data = pickle.loads(pickle.dumps(data, protocol=pickle.HIGHEST_PROTOCOL))


def cycles():
    """Garbage that only the collector finds."""
    for i in range(2500):
        a, b = [i], {"i": i}
        a.append(b)
        b["a"] = a


def primes():
    """A sieve, and sums of large integers."""
    sieve = bytearray([1]) * 20000
    for i in range(2, 142):
        if sieve[i]:
            sieve[i * i :: i] = bytes(len(range(i * i, 20000, i)))
    product = 1
    for i in range(2, 400):
        if sieve[i]:
            product *= i
    return len(str(product))


WORKLOADS = [bodies, scheduler, constraints, json_text, regular, tables, strings, sorting,
             generators, tuples, queens, spectral, instances, floats, pickling, cycles, primes]


def calibrate(work, seconds):
    work()
    n, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        work()
        n += 1
    return n


def main():
    work = {w.__name__: w for w in WORKLOADS}[sys.argv[1]]
    if sys.argv[2] == "--calibrate":
        print(json.dumps({"repetitions": calibrate(work, float(sys.argv[3]))}))
        return
    repetitions = int(sys.argv[2])
    every = float(sys.argv[3]) if len(sys.argv) > 3 else None
    work()
    if every:
        pyheap.epoch(wait=True)
    started, cpu, epochs = time.perf_counter(), time.process_time(), 0
    due = started + every / 2 if every else math.inf
    for _ in range(repetitions):
        work()
        if time.perf_counter() >= due:
            pyheap.epoch()
            epochs += 1
            due += every
    print(json.dumps({"cpu": time.process_time() - cpu,
                      "seconds": time.perf_counter() - started, "epochs": epochs}))


if __name__ == "__main__":
    main()
