# SPDX-License-Identifier: MIT
"""Children made with subprocess: ordinary Python without pyheap, before and after recovery.

live: rounds=8
"""
import subprocess
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap

CHILD = """
import os, sys
left = [name for name in os.environ
        if name == "LD_PRELOAD" or name == "PYTHONMALLOC" or name.startswith("PYHEAP")]
assert not left, left
assert "pyheap" not in sys.builtin_module_names
assert "libpyheap" not in open("/proc/self/maps").read()
try:
    import pyheap
    assert not pyheap.active
except ImportError:
    pass
print("ordinary", sum(map(int, sys.stdin.read().split())), flush=True)
sys.exit(int(sys.argv[1]))
"""


def main():
    rounds = int(sys.argv[1])
    for r in range(rounds):
        child = subprocess.run([sys.executable, "-c", CHILD, str(r % 5)], text=True,
                               input=" ".join(map(str, range(r))), stdout=subprocess.PIPE)
        assert child.returncode == r % 5, f"the child ended with {child.returncode}"
        print(r, child.stdout.strip())
        pyheap.epoch()


main()
