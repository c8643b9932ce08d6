# SPDX-License-Identifier: MIT
"""How long an epoch stops the program, against copying the changed pages once (target 2)."""
import harness
import svg

LIMIT, CONSTANT = 1.5, 0.3e-3
HEAP = 1024


def run(bench):
    out = harness.Outcome()
    counts = [0, 100, 1000, 10000, 100000, 250000]
    cases = [f"{n}:1" for n in counts] + ["100:16", "10000:16"]
    with bench.place("/dev/shm") as shared:
        report = bench.program("pause.py", HEAP, bench.rounds(15, 5), shared / "copy", *cases)
    out.raw = report
    table = out.table(f"Pause of an epoch, {HEAP} MiB heap, milliseconds", "changed pages",
                      "pages staged", "epoch() takes", "its CPU time", "pause by status()",
                      "copy once",
                      "(epoch() - 0.3 ms) / copy", "the first epoch after the rows above")
    lines = {"epoch()": [], "copy once": [], "the target": []}
    for case in cases:
        count, step = (int(n) for n in case.split(":"))
        samples = report[case]
        call = harness.Stat([s["call"] for s in samples])
        copy = harness.Stat([s["copy"] for s in samples])
        bound = harness.ratios(call.values, [LIMIT * c + CONSTANT for c in copy.values])
        ratio = harness.ratios([c - CONSTANT for c in call.values], copy.values)
        name = f"{count:,}" + (", in a row" if step == 1 else f", every {step}th")
        staged = harness.Stat([s["pages_staged"] for s in samples])
        table.add(name if count else "none", f"{staged.median:,.0f}", call.scaled(1e3).show(),
                  harness.Stat([s["cpu"] * 1e3 for s in samples]).show(),
                  harness.Stat([s["pause"] * 1e3 for s in samples]).show(),
                  copy.scaled(1e3).show(3) if count else "-", ratio.show() if count else "-",
                  f"{report[case + ':first'][0]['call'] * 1e3:.2f}")
        if step == 1 and count:
            lines["epoch()"].append((count, call.median * 1e3, min(call.values) * 1e3,
                                     max(call.values) * 1e3))
            lines["copy once"].append((count, copy.median * 1e3))
            lines["the target"].append((count, (LIMIT * copy.median + CONSTANT) * 1e3))
        if count == 0:
            out.target("2", "pause, nothing changed in 1 GiB", call.median * 1e3, 0.3, " ms")
        elif count in (100, 10000, 250000):
            out.target("2", f"pause, {name}: part of (1.5 × copy + 0.3 ms)", bound.median, 1.0,
                       " ×")
    out.plots["pause.svg"] = svg.plot(
        "Pause against changed pages (1 GiB heap)", "changed pages", "milliseconds", lines,
        log_x=True, log_y=True)
    out.notes.append("epoch() is timed by the program, so it includes parking threads, the "
                     "mappings and the process record. CPU time is the calling thread's own: it does "
                     "not count waiting for a processor. Each row was run by itself, one after "
                     "the other; its first eight epochs are not counted, the very first is in "
                     "the last column.")
    return out
