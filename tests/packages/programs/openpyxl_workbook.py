# SPDX-License-Identifier: MIT
"""openpyxl: a sheet of which each row is written at once to a temporary file, one that is read row
by row out of an archive that is open, and one that is in memory.

live: rounds=40 epochs=2 needs=openpyxl
"""
import sys

import openpyxl
import pyheap


def main():
    rounds = int(sys.argv[1])
    source = openpyxl.Workbook(write_only=True)
    sheet = source.create_sheet("numbers")
    for n in range(rounds + 5):
        sheet.append([n, n * n, f"text {n}"])
    source.save("in.xlsx")
    reading = openpyxl.load_workbook("in.xlsx", read_only=True)
    rows = reading["numbers"].iter_rows(values_only=True)
    writing = openpyxl.Workbook(write_only=True)
    out = writing.create_sheet("out")
    memory = openpyxl.Workbook()
    for r in range(rounds):
        row = next(rows)
        pyheap.epoch("a row read")
        assert row == (r, r * r, f"text {r}")
        out.append([*row, f"=A{r + 1}+1"])
        memory.active.cell(r + 1, 1, row[1]).number_format = "0.00"
        pyheap.epoch("a row written")
        if r % 10 == 0:
            print(r, memory.active.dimensions, memory.active.cell(r + 1, 1).value)
    reading.close()
    writing.save("out.xlsx")
    memory.save("memory.xlsx")
    for name, column in (("out.xlsx", 1), ("memory.xlsx", 0)):
        sheet = openpyxl.load_workbook(name).worksheets[0]
        values = [row[column] for row in sheet.iter_rows(values_only=True)]
        assert values == [n * n for n in range(rounds)], name
    for name in ("in.xlsx", "out.xlsx", "memory.xlsx"):
        with open(name, "wb"):  # they hold the time
            pass


main()
