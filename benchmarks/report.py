# SPDX-License-Identifier: MIT
"""report - outcomes as text for the terminal, Markdown and JSON"""
import dataclasses
import json


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


def put_into_readme(readme, machine, command, outcomes):
    """Replace what stands between the two markers by the table of targets."""
    begin, end = "<!-- results -->\n", "<!-- end of results -->"
    before, _, rest = readme.read_text().partition(begin)
    _, _, after = rest.partition(end)
    about = (f"`{command}` on {machine['date'][:10]}, commit {machine['commit']}: "
             f"{machine['processor']}, {machine['memory']}, Linux {machine['kernel']}, "
             f"{machine['file system']}, Python {machine['python']}; load "
             f"{machine['load at the start']} at the start, {machine['load at the end']} at the "
             "end.")
    table = markdown_table(VERDICT_COLUMNS, verdict_rows(outcomes))
    readme.write_text(f"{before}{begin}\n{about}\n\n{table}\n\n{end}{after}")


def write(directory, machine, command, seconds, docs, outcomes):
    """results.md, results.json and the plots; one run replaces the one before."""
    directory.mkdir(parents=True, exist_ok=True)
    for outcome in outcomes.values():
        for name, text in outcome.plots.items():
            (directory / name).write_text(text)
    lines = ["# Results", "",
             f"Written by `{command}` in {seconds / 60:.0f} minutes. Where three figures "
             "stand together they are the median and, in brackets, the least and the greatest.",
             "", markdown_table(["", ""], [[k, v] for k, v in machine.items()]), ""]
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
    data = {"machine": machine, "command": command, "seconds": round(seconds),
            "benchmarks": {
                name: {"doc": docs[name],
                       "tables": [dataclasses.asdict(t) for t in outcome.tables],
                       "targets": [{**dataclasses.asdict(v), "met": v.met}
                                   for v in outcome.verdicts],
                       "notes": outcome.notes, "raw": outcome.raw}
                for name, outcome in outcomes.items()}}
    (directory / "results.json").write_text(json.dumps(data, indent=1) + "\n")
