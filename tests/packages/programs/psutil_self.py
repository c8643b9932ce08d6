# SPDX-License-Identifier: MIT
"""psutil: the program's own process, known by the pid that it had at first: its threads, files,
memory and CPU time. What psutil remembers of it is the time at which it was started, which is
another one after a recovery: to an old Process it is not running then, so a new one is asked.

live: rounds=40 needs=psutil
"""
import os
import sys
import threading

import psutil
import pyheap


def main():
    rounds = int(sys.argv[1])
    me = psutil.Process()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, daemon=True)
    thread.start()
    file = open("file", "w")
    for r in range(rounds):
        pyheap.epoch()
        assert me.pid == os.getpid() and me.memory_info().rss > 0
        me = psutil.Process()
        assert me.is_running() and psutil.pid_exists(me.pid)
        assert me.num_threads() >= 2
        assert os.path.realpath("file") in {f.path for f in me.open_files()}
        assert me.cpu_times().user >= 0 and me.status() == psutil.STATUS_RUNNING
        if r % 10 == 0:
            print(r, me.name()[:6], psutil.pid_exists(os.getpid()))
    stop.set()
    thread.join()
    file.close()


main()
