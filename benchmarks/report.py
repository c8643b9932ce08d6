# SPDX-License-Identifier: MIT
"""report - outcomes as text for the terminal, Markdown and JSON"""
import dataclasses
import json

import harness


def markdown_table(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def plain_table(columns, rows):
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip()
             for row in [columns, ["-" * w for w in widths], *rows]]
    return "\n".join(lines)


def figure(value):
    """Three digits, without exponents."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def verdict_rows(outcomes):
    rows = []
    for outcome in outcomes.values():
        for v in outcome.verdicts:
            limit = f"{'≥' if v.at_least else '≤'} {figure(v.limit)}{v.unit}"
            rows.append([v.target, v.what, limit, f"{figure(v.measured)}{v.unit}",
                         "met" if v.met else "**missed**"])
    return sorted(rows, key=lambda row: int(row[0]) if row[0].isdigit() else 99)


VERDICT_COLUMNS = ["target", "what", "limit", "measured", ""]


def print_outcome(name, doc, outcome):
    print(f"\n== {name}: {doc}")
    for table in outcome.tables:
        print(f"\n{table.title}\n{plain_table(table.columns, table.rows)}")
    for note in outcome.notes:
        print(f"\n{note}")
    rows = verdict_rows({name: outcome})
    if rows:
        print("\n" + plain_table(VERDICT_COLUMNS, rows).replace("**", ""))


def print_summary(outcomes):
    rows = verdict_rows(outcomes)
    if rows:
        print("\n== Targets\n\n" + plain_table(VERDICT_COLUMNS, rows).replace("**", ""))


def put_between(path, marker, text):
    """Replace what stands between the two markers of this name in a file."""
    begin, end = f"<!-- {marker} -->\n", f"<!-- end of {marker} -->"
    before, found, rest = path.read_text().partition(begin)
    _, also, after = rest.partition(end)
    if not found or not also:
        raise SystemExit(f"{path}: {begin.strip()} and {end} are to stand there")
    path.write_text(f"{before}{begin}\n{text}\n\n{end}{after}")


def where(machine):
    parts = [machine[name] for name in ("processor", "memory", "kernel", "file system")]
    return ", ".join([*parts, f"Python {machine['python']}"])


def put_targets(path, outcomes):
    takings = "\n".join(f"- {text}" for text in takings_of(outcomes))
    table = markdown_table(VERDICT_COLUMNS, verdict_rows(outcomes))
    put_between(path, "results", f"{takings}\n\n{table}")


def put_main_table(path, heat):
    """What saving heat.py costs with pyheap and with its peers: the ratios alone."""
    cells = {}
    for table in heat.tables:
        for how, _, ratio in table.rows:
            cells.setdefault(how, []).append(ratio)
    columns = ["", *(table.title.partition(",")[0] for table in heat.tables)]
    rows = [[how, *ratios] for how, ratios in cells.items()]
    put_between(path, "main table", f"{markdown_table(columns, rows)}\n\n"
                f"{where(heat.machine)}; {heat.taken}.")


def takings_of(outcomes):
    """One line for each run that the outcomes are from."""
    names = {}
    for name, outcome in outcomes.items():
        names.setdefault(f"{outcome.taken}; {where(outcome.machine)}", []).append(name)
    return [f"{', '.join(names)}: {taken}" for taken, names in names.items()]


def load(directory):
    """What was measured before. @return docs, outcomes."""
    path = directory / "results.json"
    docs, outcomes = {}, {}
    if path.exists():
        for name, b in json.loads(path.read_text())["benchmarks"].items():
            docs[name] = b["doc"]
            outcomes[name] = harness.Outcome(
                tables=[harness.Table(**t) for t in b["tables"]],
                verdicts=[harness.Verdict(**{k: v for k, v in t.items() if k != "met"})
                          for t in b["targets"]],
                plots=dict.fromkeys(b["plots"]), notes=b["notes"], raw=b["raw"],
                taken=b["taken"], machine=b["machine"])
    return docs, outcomes


def machines_of(outcomes):
    """A table for each machine, or state of it, on which the outcomes were taken."""
    names = {}
    for name, outcome in outcomes.items():
        names.setdefault(tuple(outcome.machine.items()), []).append(name)
    return [text for machine, of in names.items()
            for text in (f"{', '.join(of)}:", "", markdown_table(["", ""], machine), "")]


def write(directory, docs, outcomes):
    """results.md, results.json and the plots."""
    directory.mkdir(parents=True, exist_ok=True)
    for outcome in outcomes.values():
        for name, text in outcome.plots.items():
            if text is not None:
                (directory / name).write_text(text)
    lines = ["# Results", "",
             "Where three figures stand together they are the median and, in brackets, the "
             "least and the greatest.", "",
             *machines_of(outcomes),
             *[f"- {text}" for text in takings_of(outcomes)], ""]
    rows = verdict_rows(outcomes)
    if rows:
        lines += ["## Targets", "", markdown_table(VERDICT_COLUMNS, rows), ""]
    for name, outcome in outcomes.items():
        lines += [f"## {name}", "", docs[name], ""]
        for table in outcome.tables:
            lines += [f"**{table.title}**", "", markdown_table(table.columns, table.rows), ""]
        for plot in outcome.plots:
            lines += [f"![{plot}]({plot})", ""]
        for note in outcome.notes:
            lines += [note, ""]
    (directory / "results.md").write_text("\n".join(lines).rstrip() + "\n")
    data = {"benchmarks": {
                name: {"doc": docs[name], "taken": outcome.taken,
                       "machine": outcome.machine,
                       "tables": [dataclasses.asdict(t) for t in outcome.tables],
                       "targets": [{**dataclasses.asdict(v), "met": v.met}
                                   for v in outcome.verdicts],
                       "plots": list(outcome.plots), "notes": outcome.notes,
                       "raw": outcome.raw}
                for name, outcome in outcomes.items()}}
    (directory / "results.json").write_text(json.dumps(data, indent=1) + "\n")
