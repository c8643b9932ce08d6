#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""foreign.py - the library in processes where it must do nothing, or refuse

    tests/hook/foreign.py --bin DIR [--stand-in PATH] [unittest options]

The stand-in is tests/hook/stand_in.c: it has a Python's symbols and the version it is told.
"""
import argparse
import glob
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

PATIENCE = 300
MAP = pathlib.Path(__file__).resolve().parent.parent.parent / "pyhook" / "libpyheap.map"
STATUS_INACTIVE, STATUS_PYTHON = 94, 89  # error.h
arguments = None


class Foreign(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="pyheap-hook-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.library = os.path.join(os.path.dirname(arguments.bin), "lib/pyheap/libpyheap.so")
        self.given = {"LD_PRELOAD": self.library, "PYTHONMALLOC": "pyheap",
                      "PYHEAP_CONTROL": "1,3,4"}

    def execute(self, *command, **environment):
        done = subprocess.run(command, env={**os.environ, **environment}, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=PATIENCE, cwd=self.directory)
        return done.returncode, done.stdout, done.stderr

    def test_needs_libc_alone(self):
        _, out, _ = self.execute("readelf", "--dynamic", "--wide", self.library)
        needed = [line.split("[")[1].rstrip("]") for line in out.splitlines()
                  if "(NEEDED)" in line]
        self.assertEqual(needed, ["libc.so.6"])
        self.assertRegex(out, r"FLAGS_1\).*NOW.*NODELETE")

    def test_shows_only_what_it_should(self):
        _, out, _ = self.execute("nm", "--dynamic", "--defined-only", "--format=posix",
                                 self.library)
        names = {line.split()[0] for line in out.splitlines()}
        with open(MAP, encoding="ascii") as file:
            listed = re.search(r"global:(.*?)local:", file.read(), re.DOTALL)[1]
        self.assertEqual(names, set(re.findall(r"\w+", listed)))
        self.assertLess({"malloc", "getpid", "syscall", "open", "pyheap_epoch"}, names)

    def test_nothing_happens_without_python(self):
        shell = "printf '%s\\n' \"$LD_PRELOAD\" \"$PYTHONMALLOC\" \"$PYHEAP_CONTROL\"; echo $$"
        for program in ("sh", "bash"):
            status, out, err = self.execute(program, "-c", shell, **self.given)
            self.assertEqual((status, err), (0, ""))
            self.assertEqual(out.splitlines()[:3], list(self.given.values()))
        for command in (("ls", "-l", "/usr"), ("sort", "/etc/passwd"), ("env",),
                        ("seq", "300000"), ("perl", "-e", "print length('x' x 5000000)"),
                        ("gcc", "--version"), ("git", "--version")):
            if shutil.which(command[0]):
                plain = self.execute(*command, **{**self.given, "LD_PRELOAD": ""})
                with_library = self.execute(*command, **self.given)
                if command == ("env",):
                    plain = (plain[0], plain[1].replace("LD_PRELOAD=\n",
                                                        f"LD_PRELOAD={self.library}\n"), plain[2])
                self.assertEqual(with_library, plain, command)

    def test_nothing_happens_without_its_value(self):
        code = "import os; print(os.environ['LD_PRELOAD'], id([]) >> 40 == 0x20)"
        for value in ("malloc", "pymalloc", "debug", ""):
            status, out, err = self.execute(
                "/usr/bin/python3", "-c", code,
                **{"LD_PRELOAD": self.library, "PYTHONMALLOC": value})
            self.assertEqual((status, out), (0, f"{self.library} False\n"), err)

    def test_started_by_hand(self):
        for value in ("pyheap", "pyheap_debug"):
            environment = {"LD_PRELOAD": self.library, "PYTHONMALLOC": value}
            status, out, err = self.execute("/usr/bin/python3", "-c", "print(1)", **environment)
            self.assertEqual((status, out), (STATUS_INACTIVE, ""))
            self.assertEqual(len(err.splitlines()), 1, err)
            self.assertIn("pyheap-run", err)

    def test_helper_written_in_python(self):
        """Another process than the one that pyheap-run started is plain Python, and so are its
        children."""
        code = ("import os, subprocess, sys\n"
                "print(sorted({'LD_PRELOAD', 'PYTHONMALLOC', 'PYHEAP_CONTROL'} & {*os.environ}),"
                "      'pyheap' in sys.builtin_module_names, id([]) >> 40 == 0x20)\n"
                "if len(sys.argv) == 1: subprocess.run([sys.executable, __file__, 'child'])")
        script = pathlib.Path(self.directory, "helper.py")
        script.write_text(code)
        status, out, err = self.execute("/usr/bin/python3", "-u", str(script), **self.given)
        self.assertEqual((status, out), (0, 2 * "[] False False\n"), err)

    def refused(self, python, environment=()):
        status, out, err = self.execute(
            os.path.join(arguments.bin, "pyheap-run"), "--pool", "x.pm", "--fresh",
            "--python", python, "-c", "print(1)", **dict(environment))
        self.assertEqual((status, out), (STATUS_PYTHON, ""), err)
        return err

    def test_old_interpreters_are_refused_by_name(self):
        root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
        for version in ("2.7", "3.6", "3.7", "3.8"):
            for path in glob.glob(f"{root}/versions/{version}.*/bin/python{version}"):
                err = self.refused(path)
                self.assertRegex(err, rf"Python {version}\.\d+: it is older than 3\.9")

    def test_versions_are_refused_by_name(self):
        for version, name, why in (
                ("2.7.18 (default, ...) ", "2.7.18", "older than 3.9"),
                ("3.8.20 (main) [GCC]", "3.8.20", "older than 3.9")):
            err = self.refused(arguments.stand_in, {"STAND_IN_VERSION": version})
            self.assertIn(f"Python {name}: ", err)
            self.assertIn(why, err)

    def test_missing_symbol_is_named(self):
        for version, symbol in (("3.12.0 (main)", "PyMem_GetAllocator"),
                                ("3.13.0a6 experimental free-threading build (main)",
                                 "PyUnstable_Module_SetGIL")):
            err = self.refused(arguments.stand_in, {"STAND_IN_VERSION": version})
            self.assertIn(symbol, err)


def main():
    global arguments
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True, help="directory of pyheap-run")
    parser.add_argument("--stand-in", required=True)
    arguments, rest = parser.parse_known_args()
    arguments.bin = os.path.abspath(arguments.bin)
    arguments.stand_in = os.path.abspath(arguments.stand_in)
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
