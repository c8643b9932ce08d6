# SPDX-License-Identifier: MIT
"""What the hook keeps through a recovery: callbacks, the pid, the domains. Kills itself once."""
import os
import signal
import subprocess
import sys
import threading
import time

import pyheap


def real_pid():
    """The kernel's, as our children see it."""
    return subprocess.check_output(["sh", "-c", "echo $PPID"], text=True).strip()


pid = os.getpid()
real = real_pid()
calls, strangers, stop = [], [], threading.Event()


@pyheap.on_restore
def first():
    pyheap.on_restore(lambda: calls.append("registered too late"))
    calls.append(("first", threading.current_thread() is threading.main_thread()))


@pyheap.on_restore
def second():
    assert pyheap.status()["recoveries"] == 1
    calls.append("second")
    raise KeyError("from a callback")


pyheap.on_restore(lambda: calls.append("after the one that raised"))


def watch():
    while not stop.is_set():
        if os.getpid() != pid:
            strangers.append(os.getpid())


watcher = threading.Thread(target=watch, daemon=True)  # a failed check ends the program
watcher.start()
try:
    pyheap.epoch(wait=True)
except KeyError as error:
    assert error.args == ("from a callback",)
else:
    os.kill(os.getpid(), signal.SIGKILL)

assert calls == [("first", True), "second"], calls
now = real_pid()
assert now != real and os.getpid() == pid
with open("/proc/self/stat", encoding="ascii") as file:
    assert file.read().split()[0] == str(pid)
hits = []
signal.signal(signal.SIGUSR1, lambda *_: hits.append(1))
os.kill(pid, signal.SIGUSR1)
while not hits:
    time.sleep(0.001)

child = os.fork()
if child == 0:
    ended = 1
    try:
        assert str(os.getpid()) == real_pid() == os.readlink("/proc/self") and os.getpid() != pid
        hits.clear()
        os.kill(os.getpid(), signal.SIGUSR1)
        while not hits:
            time.sleep(0.001)
        ended = 9
    finally:
        os._exit(ended)
assert os.waitpid(child, 0) == (child, 9 << 8)
with subprocess.Popen(["sh", "-c", "echo $$ $PPID"], stdout=subprocess.PIPE, text=True) as shell:
    assert shell.stdout.read().split() == [str(shell.pid), now]

stop.set()
watcher.join()
assert not strangers, strangers[:5]
assert pyheap._hook() == {"in_force": True, "foreign": 0}
before = pyheap.status()["epoch"]
assert pyheap.epoch() == before + 1
print("ok", file=sys.stdout)
