# SPDX-License-Identifier: MIT
"""simpy: a simulation by events, whose processes are suspended generators that wait for a
resource, for time, for a store and for each other; one is interrupted now and then.

live: rounds=60 needs=simpy
"""
import random
import sys

import pyheap
import simpy


def customer(env, name, counter, store, chance, seen):
    with counter.request() as request:
        yield request
        try:
            yield env.timeout(chance.expovariate(0.5))
        except simpy.Interrupt as interrupt:
            seen["interrupted"] += 1
            assert interrupt.cause == "closing"
    yield store.put(name)


def source(env, counter, store, chance, seen):
    number = 0
    while True:
        yield env.timeout(chance.expovariate(1))
        last = env.process(customer(env, number, counter, store, chance, seen))
        if number % 9 == 0:
            yield env.timeout(0.1)
            if last.is_alive and last.target is not None and not hasattr(last.target, "resource"):
                last.interrupt("closing")
        number += 1


def sink(env, store, seen):
    while True:
        seen["sum"] += yield store.get()
        seen["served"] += 1


def main():
    rounds = int(sys.argv[1])
    chance = random.Random(11)
    env = simpy.Environment()
    counter, store = simpy.Resource(env, capacity=2), simpy.Store(env, capacity=5)
    seen = {"served": 0, "sum": 0, "interrupted": 0}
    env.process(source(env, counter, store, chance, seen))
    env.process(sink(env, store, seen))
    for r in range(rounds):
        env.run(until=(r + 1) * 20)
        pyheap.epoch()
        assert counter.count <= 2 and env.now == (r + 1) * 20
        if r % 10 == 0:
            print(r, seen, len(counter.queue))
    assert seen["served"] > 10


main()
