# SPDX-License-Identifier: MIT
"""psutil: the program's own process, known by the pid that it had at first: still running, the
same one, with its threads, files, memory and CPU time.

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
    created = me.create_time()
    for r in range(rounds):
        pyheap.epoch()
        assert me.pid == os.getpid() and me.memory_info().rss > 0
        assert me.is_running() and me == psutil.Process() and psutil.pid_exists(me.pid)
        assert me.create_time() == created and me.children() == []
        assert me.num_threads() >= 2
        assert os.path.realpath("file") in {f.path for f in me.open_files()}
        assert me.cpu_times().user >= 0 and me.status() == psutil.STATUS_RUNNING
        if r % 10 == 0:
            print(r, me.name()[:6], psutil.pid_exists(os.getpid()))
    stop.set()
    thread.join()
    file.close()


main()
