# SPDX-License-Identifier: MIT
"""rich: a progress display with its refreshing thread, on a console that is no terminal.

live: rounds=40 needs=rich
"""
import io
import sys

import pyheap
from rich.console import Console
from rich.progress import Progress
from rich.table import Table


def main():
    rounds = int(sys.argv[1])
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    plain = Console(width=60)
    with Progress(console=console, refresh_per_second=100) as progress:
        task = progress.add_task("rounds", total=rounds)
        for r in range(rounds):
            pyheap.epoch()
            progress.advance(task)
            console.file.seek(0)
            console.file.truncate()
            if r % 10 == 0:
                table = Table("round", "done")
                table.add_row(str(r), str(progress.tasks[0].completed))
                plain.print(table)
    assert progress.finished


main()
