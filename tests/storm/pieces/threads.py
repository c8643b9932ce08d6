# SPDX-License-Identifier: MIT
"""Threads, and what they wait for."""
import asyncio
import concurrent.futures.thread  # while another thread forks, its hooks would run by half
import hashlib
import os
import queue
import select
import socket
import threading
import time

from .base import PATIENCE, end, piece, start


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
