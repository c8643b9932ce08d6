# SPDX-License-Identifier: MIT
"""interpreters - which Pythons there are to test on"""
import glob
import os
import shutil
import subprocess

DEBIAN = "/usr/bin/python3"
OLDEST, NEWEST = (3, 9), (3, 13)


class Interpreter:
    """A Python, named by path, and what it is."""

    def __init__(self, path):
        self.path = path
        code = ("import sys\nprint(*sys.version_info[:2])\n"
                "try:\n import numpy\n print(numpy.__version__)\n"
                "except ImportError:\n print('-')\n")
        done = subprocess.run([path, "-c", code], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{path} does not run: {done.stderr}")
        first, second = done.stdout.splitlines()
        self.version = tuple(map(int, first.split()))
        self.numpy = None if second == "-" else second

    def __str__(self):
        numpy = f", NumPy {self.numpy}" if self.numpy else ""
        return f"{self.path} ({'.'.join(map(str, self.version))}{numpy})"


def pyenv(version):
    """The newest pyenv interpreter of a version such as "3.12", or None."""
    root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    found = glob.glob(f"{root}/versions/{version.rstrip('t')}.*/bin/python{version}")
    # Free-threaded ones are those of versions such as 3.13.5t, under both names.
    found = [path for path in found
             if path.split("/bin/")[0].endswith("t") == version.endswith("t")]
    found.sort(key=lambda p: [int(n) for n in p.split("/versions/")[1].split("/")[0].rstrip("t")
                              .split(".") if n.isdigit()])
    return found[-1] if found else None


def free_threaded():
    """An interpreter that runs without its lock, or None: FREE_THREADED_PYTHON names it, or it is
    on PATH under its name (python3.13t), or pyenv's."""
    names = [f"3.{minor}t" for minor in range(14, 12, -1)]
    found = [os.environ.get("FREE_THREADED_PYTHON"),
             *(shutil.which(f"python{name}") for name in names), *map(pyenv, names)]
    return next(filter(None, found), None)


NO_FREE_THREADED = ("no free-threaded Python here: FREE_THREADED_PYTHON names none, and there is "
                    "no python3.14t or python3.13t on PATH or from pyenv")


def all_pyenv():
    versions = [f"3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
    return [path for path in map(pyenv, versions) if path]


def pypi(directory):
    """
    An interpreter with NumPy from PyPI, in a virtual environment under `directory`.
    @return (path, None), or (None, why not).
    """
    base = (all_pyenv() or [DEBIAN])[-1]
    name = os.path.basename(os.path.dirname(os.path.dirname(base))).replace("usr", "system")
    venv = os.path.join(directory, f"venv-{name}")
    python = os.path.join(venv, "bin", "python")
    has_numpy = [python, "-c", "import numpy; assert numpy.__version__.startswith('2.')"]
    if os.path.exists(python) and subprocess.run(has_numpy, stderr=subprocess.DEVNULL
                                                 ).returncode == 0:
        return python, None
    for step in ([base, "-m", "venv", "--clear", venv],
                 [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                  "--retries", "1", "--timeout", "15", "numpy>=2"]):
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            return None, f"{' '.join(step[:4])} failed: {' '.join(last)}"
    return python, None
