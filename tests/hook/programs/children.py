# SPDX-License-Identifier: MIT
"""Children of the program are ordinary Python."""
import concurrent.futures
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import pyheap

LOOK = """
import json, os, sys
names = [n for n in os.environ if n.startswith("PYHEAP") or n in ("LD_PRELOAD", "PYTHONMALLOC")]
print(json.dumps([{n: os.environ[n] for n in names}, "pyheap" in sys.builtin_module_names,
                  id(object()) >> 40, os.getpid()]))
"""


def square(n):
    return n * n, "pyheap" in sys.builtin_module_names, os.getpid()


def look():
    with subprocess.Popen([sys.executable, "-c", LOOK], stdout=subprocess.PIPE) as child:
        environment, builtin, place, pid = json.loads(child.stdout.read())
    assert child.returncode == 0 and not builtin and not 0x20 <= place < 0x30
    assert pid == child.pid != os.getpid()
    return environment


def forked(body):
    """Run body in a forked child that ends in the ordinary way; its exit status."""
    pid = os.fork()
    if pid == 0:
        body(os.getpid())
        sys.exit(7)
    assert pid != os.getpid()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(pid):
    assert str(pid) == os.readlink("/proc/self") and pid != parent
    for call in (pyheap.epoch, pyheap.sync, lambda: pyheap.epoch(wait=True)):
        try:
            call()
        except pyheap.ForkError:
            pass
        else:
            raise AssertionError("an epoch in a forked child")
    for _ in range(5):
        junk = [bytearray(n) for n in range(0, 3_000_000, 100_000)] + [[n] for n in range(50_000)]
    del junk[::2]
    hits = []
    signal.signal(signal.SIGUSR1, lambda *_: hits.append(1))
    os.kill(os.getpid(), signal.SIGUSR1)
    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hits == [1]
    assert forked(lambda pid: None) == 7


if __name__ == "__main__":
    parent = os.getpid()
    assert not {"LD_PRELOAD", "PYTHONMALLOC", "PYHEAP_CONTROL"} & set(os.environ)
    assert look() == {}
    pyheap.epoch()

    # By vfork and posix_spawn: the shell knows its own pid.
    shell = ["sh", "-c", "echo $$"]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, text=True) as child:
        assert int(child.stdout.read()) == child.pid
    reader, writer = os.pipe()
    pid = os.posix_spawn("/bin/sh", shell, os.environ,
                         file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
    os.close(writer)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert int(os.read(reader, 100)) == pid
    os.close(reader)
    subprocess.run(["true"], preexec_fn=lambda: bytearray(10**7), check=True)

    # By fork: while other threads allocate and free, so that a lock may be held.
    stop = threading.Event()

    def allocate():
        while not stop.is_set():
            [bytearray(n) for n in range(0, 600_000, 60_000)]

    threads = [threading.Thread(target=allocate) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert forked(in_child) == 7
    stop.set()
    for thread in threads:
        thread.join()

    for method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            answers = pool.map(square, range(50))
        assert [a[0] for a in answers] == [n * n for n in range(50)]
        assert {a[1] for a in answers} == {method == "fork"}, (method, answers[0])
        assert parent not in {a[2] for a in answers}
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            assert pool.submit(square, 12).result()[0] == 144

    assert os.getpid() == parent
    assert pyheap.epoch(wait=True) == 2
    assert pyheap._hook()["foreign"] == 0
    print("ok")
