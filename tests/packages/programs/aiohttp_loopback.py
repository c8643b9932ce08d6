# SPDX-License-Identifier: MIT
"""aiohttp: a server and a client on loopback; the listening socket is lost with the process, so the
program opens it again in pyheap.on_restore's wake.

live: rounds=30 needs=aiohttp
"""
import asyncio
import sys

import pyheap
from aiohttp import ClientSession, web

restored = []


async def hello(request):
    return web.json_response({"n": int(request.match_info["n"]) * 2})


async def start():
    app = web.Application()
    app.add_routes([web.get("/{n}", hello)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, runner.addresses[0][1]


async def main():
    rounds = int(sys.argv[1])
    if hasattr(pyheap, "on_restore"):
        pyheap.on_restore(lambda: restored.append(True))
    runner, port = await start()
    session = ClientSession()
    for r in range(rounds):
        async with session.get(f"http://127.0.0.1:{port}/{r}") as response:
            assert (await response.json())["n"] == 2 * r
        pyheap.epoch()  # with a connection that is kept alive
        if restored:
            restored.clear()
            await session.close()
            await runner.cleanup()
            runner, port = await start()
            session = ClientSession()
        if r % 10 == 0:
            print(r, "answered")
    await session.close()
    await runner.cleanup()


asyncio.run(main())
