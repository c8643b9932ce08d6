# SPDX-License-Identifier: MIT
"""watchdog: an observer's threads blocked in a read of inotify; what happens after the epoch is seen.

live: rounds=30 needs=watchdog
"""
import os
import queue
import sys

import pyheap
from watchdog.events import FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver


class Seen(FileSystemEventHandler):
    def __init__(self):
        self.names = queue.Queue()

    def on_created(self, event):
        self.names.put(os.path.basename(event.src_path))


def main():
    rounds = int(sys.argv[1])
    os.makedirs("watched/below")
    seen = Seen()
    observer = InotifyObserver()
    observer.schedule(seen, "watched", recursive=True)
    observer.start()
    for r in range(rounds):
        name = f"watched/below/{r}" if r % 2 else f"watched/{r}"
        pyheap.epoch()
        if os.path.exists(name):  # made before the program was killed
            os.unlink(name)
        open(name, "w").close()
        while seen.names.get(timeout=60) != str(r):
            pass
        os.unlink(name)
        if r % 10 == 0:
            print(r, observer.is_alive())
    observer.stop()
    observer.join()


main()
