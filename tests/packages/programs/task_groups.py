# SPDX-License-Identifier: MIT
"""asyncio from 3.11 on: TaskGroup, timeout, Barrier, Runner, ExceptionGroup caught in parts; an eager
task factory where there is one; call_later far in the future.

live: rounds=40 epochs=2 python=3.11
"""
import asyncio
import sys

import pyheap


async def worker(queue, barrier, done):
    await barrier.wait()
    while (n := await queue.get()) is not None:
        await asyncio.sleep(0)
        done.append(n * n)


async def stuck(left):
    try:
        async with asyncio.timeout(3000) as limit:
            await asyncio.Event().wait()
    finally:
        left.append(limit.when() - asyncio.get_running_loop().time())


async def turn(r):
    queue, barrier, done, left = asyncio.Queue(), asyncio.Barrier(3), [], []
    later = asyncio.get_running_loop().call_later(3600, print, "never")
    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(worker(queue, barrier, done)) for _ in range(2)]
        waiting = group.create_task(stuck(left))
        await asyncio.sleep(0.001)
        pyheap.epoch("in a task group")
        await barrier.wait()
        for n in [*range(20), None, None]:
            queue.put_nowait(n)
        await asyncio.gather(*workers)
        waiting.cancel()
    assert sorted(done) == [n * n for n in range(20)]
    assert 2000 < left[0] <= 3000, f"the time that was left has not stayed: {left}"
    later.cancel()
    try:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(1000)
    except TimeoutError:
        pass
    else:
        raise AssertionError("no timeout")


async def failing(error):
    await asyncio.sleep(0)
    raise error


async def groups():
    caught = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(failing(ValueError("a")))
            group.create_task(failing(KeyError("b")))
    except* ValueError as some:
        pyheap.epoch("in except*")  # with the rest of the group pending
        caught.append(len(some.exceptions))
    except* KeyError as some:
        caught.append(some.exceptions[0].args)
    return caught


def main():
    rounds = int(sys.argv[1])
    with asyncio.Runner() as runner:
        if hasattr(asyncio, "eager_task_factory"):
            runner.get_loop().set_task_factory(asyncio.eager_task_factory)
        for r in range(rounds):
            runner.run(turn(r))
            caught = runner.run(groups())
            if r % 10 == 0:
                print(r, caught)


main()
