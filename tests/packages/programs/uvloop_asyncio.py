# SPDX-License-Identifier: MIT
"""uvloop: timers, queues, executor threads, socketpairs, one of them new, and call_soon_threadsafe;
epochs from a task and from an executor's thread.

live: rounds=40 epochs=2 needs=uvloop
"""
import asyncio
import contextvars
import socket
import sys
import threading

import pyheap
import uvloop

where = contextvars.ContextVar("where", default="nowhere")


async def echo(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()


async def ticker(counts):
    where.set("ticker")
    while True:
        await asyncio.sleep(0.001)
        counts["ticks"] += 1
        assert where.get() == "ticker"


async def new_pair():
    """Descriptors that the loop did not have at the epoch."""
    (reader, one), (_, other) = [await asyncio.open_connection(sock=end)
                                 for end in socket.socketpair()]
    other.write(b"new")
    assert await reader.read(10) == b"new"
    one.close()
    other.close()


async def run(rounds):
    loop = asyncio.get_running_loop()
    assert type(loop).__module__.startswith("uvloop")
    ours, theirs = socket.socketpair()
    server = asyncio.ensure_future(echo(*await asyncio.open_connection(sock=theirs)))
    reader, writer = await asyncio.open_connection(sock=ours)
    counts = {"ticks": 0}
    ticking = asyncio.ensure_future(ticker(counts))
    where.set("main")
    for r in range(rounds):
        writer.write(b"line %d\n" % r)
        before = counts["ticks"]
        pyheap.epoch("in a task")
        assert await reader.readline() == b"LINE %d\n" % r
        assert await loop.run_in_executor(None, pyheap.epoch, "in a worker") >= 0
        await new_pair()
        event = asyncio.Event()
        threading.Thread(target=loop.call_soon_threadsafe, args=(event.set,)).start()
        await asyncio.wait_for(event.wait(), 20)
        while counts["ticks"] == before:
            await asyncio.sleep(0)
        assert where.get() == "main"
        if r % 10 == 0:
            print(r, where.get())
    ticking.cancel()
    writer.close()
    await server
    print("rounds", rounds)


uvloop.install()
loop = asyncio.new_event_loop()
loop.run_until_complete(run(int(sys.argv[1])))
loop.close()
