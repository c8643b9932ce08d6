# SPDX-License-Identifier: MIT
"""The first epoch of a program, and those that follow it.    first.py KIND EPOCHS

KIND: bare, numpy (imported), array (256 MiB), or the name of a workload that runs between.
"""
import json
import pathlib
import sys
import time

import pyheap

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))


def prepare(kind):
    if kind == "bare":
        return lambda: None
    if kind in ("numpy", "array"):
        import numpy as np

        array = np.ones((256 << 20 if kind == "array" else 4096) // 8)

        def work():
            array[: len(array) // 16] += 1

        return work
    import workloads

    return getattr(workloads, kind)


def main():
    work = prepare(sys.argv[1])
    work()
    samples = []
    for _ in range(1 + int(sys.argv[2])):
        started = time.perf_counter()
        pyheap.epoch()
        call = time.perf_counter() - started
        pyheap.sync()
        status = pyheap.status()
        samples.append({"call": call, "pause": status["pause"], "commit": status["commit"],
                        "staged": status["pages_staged"], "written": status["pages_written"],
                        "bytes": status["bytes_written"]})
        work()
    print(json.dumps({"first": samples[0], "next": samples[1:]}))


main()
