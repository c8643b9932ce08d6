# SPDX-License-Identifier: MIT
"""anyio on asyncio and on trio: task groups, cancel scopes with deadlines, streams, worker threads;
one loop after the other in turns.

live: rounds=30 epochs=2 needs=anyio,trio
"""
import math
import sys

import anyio
import anyio.to_thread
import pyheap
import trio


async def producer(send, n):
    async with send:
        for i in range(n):
            await send.send(i)


async def turn(r):
    send, receive = anyio.create_memory_object_stream(2)
    woken = []

    async def sleeper():
        with anyio.CancelScope(deadline=anyio.current_time() + 1000) as scope:
            try:
                await anyio.sleep(math.inf)
            finally:
                woken.append(scope.deadline > anyio.current_time())

    async with anyio.create_task_group() as group:
        group.start_soon(sleeper)
        group.start_soon(producer, send, 10)
        await anyio.sleep(0.001)
        pyheap.epoch("in a task")
        async with receive:
            got = [item async for item in receive]
        assert got == list(range(10))
        assert await anyio.to_thread.run_sync(pyheap.epoch, "in a thread") >= 0
        group.cancel_scope.cancel()
    assert woken == [True]
    with anyio.move_on_after(0.001) as scope:
        await anyio.sleep(1000)
    assert scope.cancelled_caught if hasattr(scope, "cancelled_caught") else scope.cancel_called


def main():
    rounds = int(sys.argv[1])
    for r in range(rounds):
        anyio.run(turn, r, backend="trio" if r % 2 else "asyncio")
        if r % 10 == 0:
            print(r, "turned")


main()
