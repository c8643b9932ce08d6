# SPDX-License-Identifier: MIT
"""An asyncio loop with sleeping tasks, a queue, timeouts and an executor.

live: rounds=60 exit=6
"""
import asyncio
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap


async def produce(queue, rounds):
    for r in range(rounds):
        await asyncio.sleep(0.001)
        await queue.put(r)
    await queue.put(None)


async def heartbeat(beats):
    while True:
        await asyncio.sleep(0.003)
        beats.append(len(beats))


def in_thread(n):
    return sum(i * i for i in range(n))


async def main(rounds):
    loop = asyncio.get_running_loop()
    queue = asyncio.Queue(maxsize=3)
    beats = []
    pulse = asyncio.ensure_future(heartbeat(beats))
    producer = asyncio.ensure_future(produce(queue, rounds))
    late = loop.create_future()
    total = timeouts = 0
    while True:
        r = await queue.get()
        if r is None:
            break
        total += await loop.run_in_executor(None, in_thread, 20000 + r)
        pyheap.epoch(f"item {r}")
        assert asyncio.get_running_loop() is loop
        try:
            await asyncio.wait_for(asyncio.shield(late), timeout=0.002)
        except asyncio.TimeoutError:
            timeouts += 1
        if r % 20 == 0:
            print(r, total)
    await producer
    pulse.cancel()
    late.cancel()
    assert beats == list(range(len(beats))) and beats
    print("total", total, "timeouts", timeouts)
    return 6


sys.exit(asyncio.run(main(int(sys.argv[1]))))
