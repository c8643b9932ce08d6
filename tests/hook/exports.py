#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""exports.py - what the preloaded library stands before is visible, and nothing else

A function that is meant to take libc's place and is missing in libpyheap.map is never called.
"""
import pathlib
import re
import subprocess
import sys


def symbols(file, *options):
    """Functions that are defined and visible in @file."""
    told = subprocess.run(["readelf", "--wide", *options, file], check=True, text=True, capture_output=True).stdout
    return set(re.findall(r"FUNC +GLOBAL +DEFAULT +\d+ ([^\s@]+)", told))


def main(library, *objects):
    meant = set().union(*(symbols(file, "--syms") for file in objects))
    shown = symbols(library, "--dyn-syms")
    if not shown or meant != shown:
        sys.exit(f"not in libpyheap.map: {sorted(meant - shown)}; not meant: {sorted(shown - meant)}")
    print(len(shown), "functions")


main(*map(pathlib.Path, sys.argv[1:]))
