#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""run.py - the hook in one interpreter: what a program sees under pyheap-run

    tests/hook/run.py --bin DIR (--python PATH | --pyenv X.Y | --free-threaded)
                      [unittest options]

The programs in programs/ check themselves and print "ok"; here they are started in the ways
in which people start Python. Exit status 77 if there is no such interpreter.
"""
import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "live"))

import interpreters  # noqa: E402

PACKAGE = HERE.parent.parent / "pyhook" / "python" / "pyheap"
PROGRAMS = HERE / "programs"
PATIENCE = 300  # seconds; reached only if something hangs
SKIPPED = 77
STATUS_NOMEM, STATUS_PYTHON = 84, 89  # error.h

OURS = ("LD_PRELOAD", "PYTHONMALLOC", "PYHEAP_CONTROL")
IN_FORCE = "import pyheap; assert pyheap._hook() == {'in_force': True, 'foreign': 0}; "
arguments = None


class HookTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="pyheap-hook-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.pools = 0

    def start(self, *words, python=None, environment=(), **keywords):
        """Run Python with these words under pyheap-run; (status, stdout, stderr)."""
        self.pools += 1
        pool = os.path.join(self.directory, f"{self.pools}.pm")
        command = [arguments.run, "--python", python or arguments.python, "--pool", pool, *words]
        return self.execute(command, environment, **keywords)

    def execute(self, command, environment=(), **keywords):
        variables = {n: v for n, v in os.environ.items()
                     if n not in OURS and not n.startswith("PYHEAP_")}
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        variables.update(environment)
        done = subprocess.run([str(word) for word in command], env=variables, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=PATIENCE, cwd=self.directory,
                              **keywords)
        return done.returncode, done.stdout, done.stderr

    def check(self, expected, *words, **keywords):
        status, out, err = self.start(*words, **keywords)
        self.assertEqual((status, out), (0, expected), err)

    def make_venv(self, *options):
        venv = os.path.join(self.directory, "venv")
        subprocess.run([arguments.python, "-m", "venv", "--without-pip", *options, venv],
                       check=True)
        return os.path.join(venv, "bin", "python")


class Programs(HookTest):
    def test_everything_lies_in_the_heap(self):
        self.check("ok\n", PROGRAMS / "heap.py")

    def test_everything_lies_in_the_heap_under_debug_hooks(self):
        self.check("ok\n", PROGRAMS / "heap.py", environment={"PYTHONMALLOC": "debug"})

    def test_large_blocks_of_malloc(self):
        self.check("ok\n", PROGRAMS / "large_blocks.py")

    def test_module(self):
        self.check("ok\n", PROGRAMS / "module.py", PACKAGE)

    def test_streams_are_flushed(self):
        self.check("ok", PROGRAMS / "streams.py")

    def test_children_are_ordinary(self):
        self.check("ok\n", PROGRAMS / "children.py")

    def test_other_preloads_stay(self):
        code = ("import os, subprocess, sys; print(os.environ['LD_PRELOAD'], flush=True); "
                "subprocess.run([sys.executable, '-c', 'import os; "
                "print(os.environ[\"LD_PRELOAD\"])'], check=True)")
        for given in ("libm.so.6", "libm.so.6:librt.so.1", "libm.so.6 librt.so.1"):
            kept = given.replace(" ", ":") + "\n"
            self.check(2 * kept, "-c", code, environment={"LD_PRELOAD": given})


class Starting(HookTest):
    def test_options_of_python(self):
        program = IN_FORCE + "print(pyheap.epoch())"
        for options in ((), ("-E",), ("-I",), ("-S",), ("-s",), ("-O",), ("-B",), ("-u",),
                        ("-X", "utf8"), ("-W", "error"), ("-I", "-S", "-O")):
            with self.subTest(options=options):
                self.check("1\n", *options, "-c", program)

    def test_module_as_program(self):
        pathlib.Path(self.directory, "app").mkdir()
        pathlib.Path(self.directory, "app", "__init__.py").touch()
        pathlib.Path(self.directory, "app", "__main__.py").write_text(
            IN_FORCE + "print(__name__, pyheap.epoch())")
        self.check("__main__ 1\n", "-m", "app")

    def test_environment_of_python(self):
        hashed = "import pyheap; print(hash('pyheap'))"
        seed = {"PYTHONHASHSEED": "12345"}
        _, plain, _ = self.execute([arguments.python, "-c", hashed.replace("import pyheap; ", "")],
                                   seed)
        self.check(plain, "-c", hashed, environment=seed)
        self.check("42 1\n", "-c", IN_FORCE + "import os; print(os.environ['X'], pyheap.epoch())",
                   environment={"X": "42", "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"})

    def test_environment_is_otherwise_the_same(self):
        code = ("import os; print(sorted((n, v) for n, v in os.environ.items() "
                "if n not in ('_', 'SHLVL')))")
        _, plain, _ = self.execute([arguments.python, "-c", code], {"PYHEAP_ELSE": "1"})
        self.check(plain, "-c", code, environment={"PYHEAP_ELSE": "1"})

    def test_virtual_environment(self):
        python = self.make_venv()
        site = subprocess.run([python, "-c", "import site; print(site.getsitepackages()[0])"],
                              check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        code = "import pyheap, sys; print(pyheap.active, sys.prefix != sys.base_prefix)"
        self.check("True True\n", "-c", code, python=python)
        status, _, err = self.execute([python, "-c", code])
        self.assertEqual(status, 1)
        self.assertIn("ModuleNotFoundError", err)
        shutil.copytree(PACKAGE, os.path.join(site, "pyheap"))
        self.assertEqual(self.execute([python, "-c", code])[:2], (0, "False True\n"))
        self.check("True True\n", "-c", code, python=python)  # the built-in one wins

    def test_found_by_shell_scripts(self):
        """As pyenv's shims do: the interpreter is executed in the end by the same process."""
        helper = pathlib.Path(self.directory, "helper.py")
        helper.write_text(f"import os; print(sorted(set(os.environ) & set({OURS})))")
        shim = pathlib.Path(self.directory, "shim")
        shim.write_text(f"#!/bin/bash\nls / | cat >/dev/null\n"
                        f"{arguments.python} {helper}\n"
                        f"exec '{self.directory}/second' \"$@\"\n")
        second = pathlib.Path(self.directory, "second")
        second.write_text(f"#!/bin/sh\nexec {arguments.python} \"$@\"\n")
        shim.chmod(0o755)
        second.chmod(0o755)
        self.check("[]\n1\n", "-c", IN_FORCE + "print(pyheap.epoch())", python=shim)

    def test_tracing_memory_is_allowed(self):
        self.check("1 True\n", "-X", "tracemalloc", "-c",
                   IN_FORCE + "import tracemalloc; print(pyheap.epoch(), "
                   "tracemalloc.get_traced_memory()[0] > 0)")
        self.check("1\n2\n", "-c", IN_FORCE + "import tracemalloc; tracemalloc.start(); "
                   "print(pyheap.epoch()); tracemalloc.stop(); print(pyheap.epoch())")

    def test_exit_status_and_signals(self):
        self.assertEqual(self.start("-c", "import pyheap; raise SystemExit(5)")[0], 5)
        code = "import os, pyheap; os.kill(os.getpid(), 9)"
        self.assertEqual(self.start("-c", code)[0], -signal.SIGKILL)


class FromC(HookTest):
    def test_without_import(self):
        code = ("import ctypes, sys; print(ctypes.PyDLL(None).pyheap_epoch(None), "
                "'pyheap' in sys.modules); import pyheap; print(pyheap.epoch())")
        self.check("0 True\n2\n", "-c", code)

    def test_errors(self):
        code = ("import ctypes, os, sys\nepoch = ctypes.PyDLL(None).pyheap_epoch\n"
                "sys.stdout = open('/dev/full', 'w'); sys.stdout.write('x')\n"
                "try: epoch(None)\nexcept OSError as error: print(error.errno, file=sys.stderr)\n"
                "sys.stdout = None\n"
                "if os.fork() == 0: print(epoch(None), file=sys.stderr); os._exit(0)\n"
                "os.wait()\n")
        status, _, err = self.start("-c", code)
        self.assertEqual(status, 0, err)
        self.assertLessEqual({"28", "-1022"}, set(err.splitlines()))


class Recovering(HookTest):
    def test_recovered_program(self):
        status, out, err = self.start(PROGRAMS / "recovered.py")
        self.assertEqual((status, out), (-signal.SIGKILL, ""), err)
        pool = os.path.join(self.directory, f"{self.pools}.pm")
        status, out, err = self.execute([arguments.recover, pool])
        self.assertEqual((status, out), (0, "ok\n"), err)


class Debugging(HookTest):
    CODE = """
import ctypes, sys, pyheap
api = ctypes.pythonapi
def fresh(domain, size=64):
    allocate, release = getattr(api, domain + "Malloc"), getattr(api, domain + "Free")
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    release.argtypes = [ctypes.c_void_p]
    block = allocate(size)
    content = ctypes.string_at(block, size)
    release(block)
    return content == b"\\xcd" * size, block >> 44 == 2  # 0x2000_0000_0000: the heap
# Where there is no interpreter lock objects are its own, and have no such content.
last = "PyMem_Raw" if "t" in sys.abiflags else "PyObject_"
hooks, mine = zip(fresh("PyMem_"), fresh(last))
pyheap.epoch()
print(sys.flags.dev_mode, list(hooks), pyheap._hook()["in_force"], mine[-1])
"""

    def test_development_mode(self):
        """Asked for on the command line, in the environment, and by a script on the way."""
        wrapper = pathlib.Path(self.directory, "dev")
        for before, words in (("", "-X dev"), ("", "-BXdev"), ("export PYTHONDEVMODE=1\n", "-B"),
                              ("export PYTHONDEVMODE=1 LC_ALL=C\n", "-B"), ("", "-I -X dev"),
                              ("export LC_ALL=C\n", "-E -X utf8=0 -X dev")):
            wrapper.write_text(f"#!/bin/sh\n{before}exec {arguments.python} {words} \"$@\"\n")
            wrapper.chmod(0o755)
            status, out, err = self.start("-c", self.CODE, python=wrapper)
            self.assertEqual((status, out), (0, "True [True, True] True True\n"), err)

    def test_values_of_pythonmalloc(self):
        """The debug ones are heeded, others make no difference."""
        for value, debug in (("debug", True), ("malloc_debug", True), ("pymalloc_debug", True),
                             ("malloc", False), ("pymalloc", False), ("default", False),
                             ("", False)):
            status, out, err = self.start("-c", self.CODE, environment={"PYTHONMALLOC": value})
            self.assertEqual((status, out), (0, f"False [{debug}, {debug}] True True\n"), err)


class Refusing(HookTest):
    def limited(self, limit):
        wrapper = pathlib.Path(self.directory, "limited")
        wrapper.write_text(f"#!/bin/sh\nulimit {limit}\nexec {arguments.python} \"$@\"\n")
        wrapper.chmod(0o755)
        return self.start("-c", "print(bytes(1 << 20)[-1])", python=wrapper)

    def test_little_address_space_is_enough(self):
        for limit in ("-v 4000000", "-d 100000"):
            status, out, err = self.limited(limit)
            self.assertEqual((status, out), (0, "0\n"), err)

    def test_too_little_address_space(self):
        status, out, err = self.limited("-v 300000") # less than the staging ring takes
        self.assertEqual((status, out), (STATUS_NOMEM, ""), err)
        self.assertIn("ulimit -v", err)

    def test_hooks_replaced_while_running(self):
        code = """
import ctypes, pyheap
class Allocator(ctypes.Structure):
    _fields_ = [(n, ctypes.c_void_p) for n in ("ctx", "malloc", "calloc", "realloc", "free")]
libc, api = ctypes.CDLL(None), ctypes.pythonapi
CALL = ctypes.CFUNCTYPE
old, new = Allocator(), Allocator()
api.PyMem_GetAllocator(0, ctypes.byref(old))
m = CALL(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(lambda ctx, size: malloc(size))
malloc = libc.malloc
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
new.malloc, new.calloc, new.realloc, new.free = (ctypes.cast(m, ctypes.c_void_p).value,
    old.calloc, old.realloc, old.free)
new.ctx = old.ctx
assert pyheap.epoch() == 1
api.PyMem_SetAllocator(0, ctypes.byref(new))
try:
    pyheap.epoch()
except pyheap.Error as error:
    print(error)
api.PyMem_SetAllocator(0, ctypes.byref(old))
assert pyheap.epoch() == 2
"""
        status, out, err = self.start("-c", code)
        self.assertEqual(status, 0, err)
        self.assertIn("something has replaced it", out)


def main():
    global arguments
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True, help="directory of pyheap's commands")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--python", help="the interpreter to test")
    which.add_argument("--pyenv", help="version of pyenv's interpreter to test, such as 3.12")
    which.add_argument("--free-threaded", action="store_true",
                       help="test a Python without the interpreter lock")
    arguments, rest = parser.parse_known_args()
    arguments.run = os.path.join(os.path.abspath(arguments.bin), "pyheap-run")
    arguments.recover = os.path.join(os.path.abspath(arguments.bin), "pyheap-recover")
    missing = f"no Python {arguments.pyenv} from pyenv here"
    if arguments.pyenv:
        arguments.python = interpreters.pyenv(arguments.pyenv)
    elif arguments.free_threaded:
        arguments.python, missing = interpreters.free_threaded(), interpreters.NO_FREE_THREADED
    if not arguments.python:
        print(f"skipped: {missing}")
        sys.exit(SKIPPED)
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
