# SPDX-License-Identifier: MIT
"""IPython: a shell that is embedded in a program, cells that take epochs, its history and output,
a traceback that it has shown, magics. The history is in memory: a database on disk has the lines
since the epoch already when they are run again, of which IPython prints a line.

live: rounds=30 needs=IPython
"""
import os
import sys
import tempfile

os.environ["IPYTHONDIR"] = tempfile.mkdtemp()

import pyheap
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config


def main():
    rounds = int(sys.argv[1])
    config = Config()
    config.HistoryManager.hist_file = ":memory:"
    shell = InteractiveShell.instance(config=config)
    shell.run_cell("import pyheap\ntotal = 0", silent=True)
    for r in range(rounds):
        with capture_output() as captured:
            done = shell.run_cell(f"total += {r}\npyheap.epoch()\ntotal", store_history=True)
            failed = shell.run_cell("1 / 0", store_history=True)
        assert done.success and done.result == r * (r + 1) // 2
        assert not failed.success and "ZeroDivisionError" in captured.stdout
        assert shell.user_ns["_"] == done.result
        with capture_output():
            shell.run_line_magic("time", "sum(range(10))")
        if r % 10 == 0:
            print(r, shell.execution_count, len(shell.user_ns["In"]))


main()
