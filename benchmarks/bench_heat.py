# SPDX-License-Identifier: MIT
"""heat.py with a durable epoch every 10 iterations, against stock Python and its peers (target 1)."""
import harness
import outside

EVERY = 10
STOCK, EPOCHS, WITHOUT = "stock Python, nothing saved", "pyheap", "pyheap-run, no epochs"
BY_HAND = {"np.save + fsync + rename, by hand": "numpy", "joblib.dump, by hand": "joblib",
           "cloudpickle.dump, by hand": "cloudpickle", "dill.dump_module, globals only": "dill"}


def result(output):
    for line in output.splitlines():
        if line.startswith("sha256 "):
            return line
    raise harness.Failed("heat printed no result")


def run_kind(bench, kind, size, peers, results):
    heat = harness.EXAMPLES / "heat.py"
    with bench.place() as place:
        if kind == STOCK:
            command = [bench.python, heat, size, "--epoch-every", "0"]
        elif kind in (EPOCHS, WITHOUT):
            command = bench.under_pyheap(place / "pool.pm", heat, size, "--epoch-every",
                                         EVERY if kind == EPOCHS else 0)
        elif kind in BY_HAND:
            command = [bench.python, harness.PROGRAMS / "heat_peers.py", size, "--every", EVERY,
                       "--how", BY_HAND[kind]]
        else:
            out, seconds = outside.run(peers[kind], bench, place, [size, "--every", str(EVERY)])
            results.add(result(out))
            return seconds
        out, seconds = bench.run(command, place)
        results.add(result(out))
        return seconds


def why_it_fails(bench, peer):
    """A short run, so that one peer's failure does not cost the table."""
    try:
        with bench.place() as place:
            outside.run(peer, bench, place, ["50*50*20", "--every", str(EVERY)])
    except harness.Failed as error:
        return str(error)
    return None


def compare(bench, out, side, iterations, rounds, peers):
    size = f"{side}*{side}*{iterations}"
    kinds = [STOCK, EPOCHS, WITHOUT, *BY_HAND, *peers]
    results = set()
    seconds = harness.alternate(kinds, rounds,
                                lambda kind: run_kind(bench, kind, size, peers, results))
    if len(results) != 1:
        raise harness.Failed(f"the variants of heat.py {size} disagree: {sorted(results)}")
    table = out.table(f"heat.py {size}, saved every {EVERY} iterations", "how", "seconds",
                      "times stock")
    for kind in kinds:
        table.add(kind, harness.Stat(seconds[kind]).show(),
                  harness.ratios(seconds[kind], seconds[STOCK]).show())
    out.target("1", f"heat.py {side}², epochs / stock without",
               harness.ratios(seconds[EPOCHS], seconds[STOCK]).median, 1.0, " ×")
    out.raw[size] = seconds


def run(bench):
    out = harness.Outcome()
    peers = {}
    for peer in (outside.Dmtcp(), outside.Criu()):
        why = peer.why_not() or why_it_fails(bench, peer)
        if why:
            out.notes.append(f"{peer.name} is not in the table: {why}")
        else:
            peers[peer.name] = peer
    compare(bench, out, 1000, bench.rounds(100, 50), bench.rounds(4, 2), peers)
    if not bench.quick:
        compare(bench, out, 2000, 100, 3, peers)
    out.notes.append("The whole command is timed, from its start to its end; for pyheap that "
                     "is when the last epoch is durable and the pool is closed. All variants "
                     "end with the same grid, which is checked.")
    return out
