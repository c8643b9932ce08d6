# SPDX-License-Identifier: MIT
"""Small programs in pure Python, whose epochs first.py takes."""
import functools
import itertools
import json
import random


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


def json_text():
    """JSON, there and back."""
    records = [{"id": i, "name": f"record {i}", "tags": ["a", "b", str(i)], "x": i / 7,
                "nested": {"yes": True, "no": None}} for i in range(150)]
    for _ in range(3):
        records = json.loads(json.dumps(records))


def tables():
    """Dictionaries and lists that come and go."""
    table = {}
    for i in range(3000):
        table[i * 7 % 1999] = [i, i + 1]
        if i % 3 == 0:
            table.pop(i % 500, None)
    return {k: v[::-1] for k, v in table.items() if k % 2}


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


def cycles():
    """Garbage that only the collector finds."""
    for i in range(2500):
        a, b = [i], {"i": i}
        a.append(b)
        b["a"] = a
