# SPDX-License-Identifier: MIT
"""From exec of pyheap-recover to the program's first output, warm and cold (target 8)."""
import os
import subprocess
import time

import harness
import svg

PIECE = 8 << 20


def read_pool(path):
    """Seconds to read what the sparse file holds, in sequence. @return (seconds, bytes)."""
    buffer = bytearray(PIECE)
    total, at = 0, 0
    started = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # only a hole is left
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            os.lseek(file.fileno(), at, os.SEEK_SET)
            while at < end:
                with memoryview(buffer)[: min(PIECE, end - at)] as view:
                    n = file.readinto(view)
                at += n
                total += n
    return time.perf_counter() - started, total


def recover(bench, pool, place):
    """@return seconds until the first output, and until every page has been read."""
    started = time.perf_counter()
    with subprocess.Popen([str(bench.bin / "pyheap-recover"), str(pool)], cwd=place,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        first = process.stdout.readline()
        back = time.perf_counter() - started
        second = process.stdout.readline()
        whole = time.perf_counter() - started
        _, errors = process.communicate()
    if first != b"back\n" or second != b"whole\n":
        raise harness.Failed(f"recovery said {first!r} {second!r}: {errors.decode()[-300:]}")
    return back, whole


def run(bench):
    out = harness.Outcome()
    sizes = [64, 256, 1024] if bench.quick else [64, 256, 1024, 4096]
    table = out.table("Recovery", "program", "page cache", "first output, ms",
                      "every page read, ms", "reading the pool file, ms",
                      "reading / first output")
    lines = {"warm": [], "cold": [], "reading the pool, cold": []}
    cold_possible = True
    for mebibytes in sizes:
        with bench.place() as place:
            pool = place / "pool.pm"
            started = subprocess.run(
                bench.under_pyheap(pool, str(harness.PROGRAMS / "recover.py"), str(mebibytes)),
                cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if "is safe" not in started.stderr:
                raise harness.Failed(started.stderr[-300:])
            for state in ("warm", "cold"):
                backs, wholes, reads = [], [], []
                rounds = 5 if state == "warm" else 2 if mebibytes > 1024 else 3
                for i in range(bench.rounds(rounds, 2)):
                    if state == "cold" and not harness.drop_caches():
                        cold_possible = False
                        break
                    if state == "warm":
                        read_pool(pool)
                    back, whole = recover(bench, pool, place)
                    if state == "cold":
                        harness.drop_caches()
                    seconds, data = read_pool(pool)
                    backs.append(back)
                    wholes.append(whole)
                    reads.append(seconds)
                if not backs:
                    continue
                back, read = harness.Stat(backs), harness.Stat(reads)
                rate = harness.ratios(reads, wholes)
                table.add(harness.size_name(mebibytes), state, back.scaled(1e3).show(0),
                          harness.Stat(wholes).scaled(1e3).show(0), read.scaled(1e3).show(0),
                          harness.ratios(reads, backs).show())
                out.raw[f"{mebibytes} {state}"] = {"back": backs, "whole": wholes,
                                                   "read": reads, "bytes": data}
                lines[state].append((mebibytes, back.median * 1e3))
                if state == "cold":
                    lines["reading the pool, cold"].append((mebibytes, read.median * 1e3))
                if mebibytes == sizes[-1]:
                    name = harness.size_name(mebibytes)
                    if state == "warm":
                        out.target("8", f"{name}, warm: first output", back.median * 1e3, 100,
                                   " ms")
                    else:
                        # The pool may hold more than the epoch, so compare rates.
                        part = (mebibytes << 20) / data * rate.median
                        out.target("8", f"{name}, cold: read and verified, rate / "
                                   "reading the file", part, 0.9, " ×", at_least=True)
    if not cold_possible:
        out.notes.append("Cold: not measured, since only root may drop the page cache.")
    out.plots["recovery.svg"] = svg.plot(
        "Recovery: from exec to the first output", "program", "milliseconds",
        {name: points for name, points in lines.items() if points}, log_x=True, log_y=True,
        x_ticks=[(m, harness.size_name(m)) for m in sizes])
    out.notes.append("Each recovery ends with a kill; the next one starts from the same pool.")
    return out
