#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""heat_values.py - examples/heat.py gives the known values, whatever NumPy it runs on"""
import pathlib
import subprocess
import sys

from interpreters import DEBIAN, Interpreter, all_pyenv

HEAT = pathlib.Path(__file__).resolve().parent.parent.parent / "examples" / "heat.py"
KNOWN = {
    "100*100*1": "4e88443c10f30ade",
    "1000*1000*10": "639c876c60035ffa",
    "1000*1000*100": "d3ac5b4ab14a36e3",
}

wrong = tested = 0
for interpreter in map(Interpreter, [DEBIAN, *all_pyenv()]):
    for size, known in KNOWN.items() if interpreter.numpy else ():
        done = subprocess.run([interpreter.path, HEAT, size], stdout=subprocess.PIPE, text=True)
        found = done.stdout.split()[-1][:16] if done.returncode == 0 else "no result"
        tested += 1
        wrong += found != known
        print(f"{'ok  ' if found == known else 'FAIL'}  {interpreter}: {size} {found}")
if not tested:
    print("skipped: no interpreter with NumPy")
    sys.exit(77)
sys.exit(1 if wrong else 0)
