# SPDX-License-Identifier: MIT
"""Children that run at the epoch were killed, as far as a recovered program can tell; one that had
ended and was not waited for has the status it had. SIGCHLD tells, and killing one hits nobody. So
has a command of os.system that another thread waits for.

live: rounds=40
"""
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

try:
    import pyheap
except ImportError:
    import plain as pyheap


WAITING = "while kill -0 $PPID; do sleep 0.2; done 2>/dev/null"  # ends if its parent does
KILLED = ": > begun; while kill -0 $PPID; do test -e go && kill -9 $$; sleep 0.01; done 2>/dev/null"


def remove(name):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)


def main():
    told, status = [], []
    signal.signal(signal.SIGCHLD, lambda *_: told.append(1))
    for r in range(int(sys.argv[1])):
        asleep = subprocess.Popen(["sh", "-c", WAITING], stdin=subprocess.DEVNULL)
        ended = os.fork()
        if ended == 0:
            os._exit(r % 7)
        os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
        remove("begun")  # of a life that was killed
        command = threading.Thread(target=lambda: status.append(os.system(KILLED)))
        command.start()
        while not os.path.exists("begun"):
            time.sleep(0.001)
        remove("begun")
        before = getattr(pyheap, "status", lambda: {"recoveries": 0})()["recoveries"]
        told.clear()
        pyheap.epoch()
        recovered = getattr(pyheap, "status", lambda: {"recoveries": 0})()["recoveries"] > before
        assert os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT).si_status == r % 7
        open("go", "w", encoding="ascii").close()
        command.join()
        remove("go")
        assert status.pop() == signal.SIGKILL
        if r % 2:
            assert os.waitpid(ended, 0) == (ended, (r % 7) << 8)
        if recovered:
            assert told, "no SIGCHLD"
            os.kill(asleep.pid, signal.SIGTERM)  # whoever has this number now
        else:
            asleep.kill()
        assert asleep.wait() == -signal.SIGKILL, asleep.returncode
        if not r % 2:
            assert os.wait() == (ended, (r % 7) << 8)
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print(r)
    remove("begun")


main()
