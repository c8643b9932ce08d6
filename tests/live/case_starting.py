# SPDX-License-Identifier: MIT
"""case_starting - the ways in which Python programs are started: each is killed and recovered"""
import os
import shutil
import signal
import subprocess
import textwrap
import zipapp

from case import Case

PROGRAM = """
import os, signal, sys
import pyheap

def main():
    total = 0
    for step in range(4):
        total += step
        pyheap.epoch(wait=True)
        if step == 2 and not pyheap.status()["recoveries"]:
            os.kill(os.getpid(), signal.SIGKILL)
    assert pyheap._hook() == {"in_force": True, "foreign": 0}, pyheap._hook()
    print(__name__, total, *sys.argv[1:])

if __name__ == "__main__":
    main()
"""


class Starting(Case):
    def chain(self, words, expected="__main__ 6\n", environment=(), stdin=None, python=None):
        """Start Python with these words, which dies; recover it. @return what it said then."""
        argv = [self.commands.run, "--fresh", "--pool", self.pool,
                "--python", python or self.python, *words]
        more = {"env": {**os.environ, **dict(environment)}}
        if stdin:
            more["stdin"] = open(stdin, "rb")
            self.addCleanup(more["stdin"].close)
        done = self.finish(argv, **more)
        self.assert_killed(done.returncode, signal.SIGKILL)
        if stdin:
            more["stdin"] = open(stdin, "rb")
            self.addCleanup(more["stdin"].close)
        done = self.finish([self.commands.recover, self.pool], **more)
        self.assert_ended(done)
        self.assertEqual(done.stdout, expected)
        return done.stderr

    def write(self, name, text=PROGRAM, mode=0o644):
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def test_script_command_and_modules(self):
        script = self.write("prog.py")
        self.write("package/__init__.py", "")
        self.write("package/__main__.py")
        self.write("package/part.py")
        for words in ([script], ["-c", PROGRAM], ["-m", "prog"], ["-m", "package"],
                      ["-m", "package.part"], [str(self.directory / "package")]):
            with self.subTest(str(words)[:40]):
                self.chain([*words, "a", "-b"], "__main__ 6 a -b\n")

    def test_zip_applications(self):
        self.write("one/__main__.py")
        self.write("two/other.py")
        zipapp.create_archive(self.directory / "one", self.directory / "one.pyz")
        zipapp.create_archive(self.directory / "two", self.directory / "two.pyz",
                              main="other:main", compressed=True)
        self.chain([str(self.directory / "one.pyz")])
        self.chain([str(self.directory / "two.pyz")], "other 6\n")

    def test_from_standard_input(self):
        self.chain(["-"], stdin=self.write("prog.py"))

    def test_options_of_python(self):
        script = self.write("prog.py")
        for options in ("-I", "-E", "-S", "-s", "-O", "-OO", "-B", "-u", "-b", "-d", "-I -S -E",
                        "-X dev", "-X utf8", "-X importtime", "-X faulthandler",
                        "-X tracemalloc", "-W error", "-i", "-v"):
            with self.subTest(options):
                self.chain([*options.split(), script])

    def test_values_of_pythonmalloc(self):
        script = self.write("prog.py")
        for value in ("malloc", "pymalloc", "debug", "malloc_debug", "pymalloc_debug", "default",
                      "mimalloc", "mimalloc_debug", "pyheap", "nonsense", ""):
            with self.subTest(value):
                self.chain([script], environment={"PYTHONMALLOC": value})

    def test_a_virtual_environment_and_its_console_script(self):
        venv = self.directory / "venv"
        subprocess.run([self.python, "-m", "venv", "--without-pip", venv], check=True)
        python = str(venv / "bin" / "python")
        site = subprocess.run([python, "-c", "import site; print(site.getsitepackages()[0])"],
                              check=True, capture_output=True, text=True).stdout.strip()
        with open(os.path.join(site, "installed_tool.py"), "w", encoding="ascii") as file:
            file.write(PROGRAM)
        tool = self.write("venv/bin/tool", f"#!{python}\n" + textwrap.dedent("""\
            import re, sys
            from installed_tool import main
            if __name__ == "__main__":
                sys.argv[0] = re.sub(r"(-script\\.pyw|\\.exe)?$", "", sys.argv[0])
                sys.exit(main())
        """), 0o755)
        for words in ([tool, "x"], ["-m", "installed_tool", "x"]):
            expected = ("installed_tool" if words[0] == tool else "__main__") + " 6 x\n"
            self.chain(words, expected, python=python)

    def test_pyheap_run_inside_of_itself(self):
        inner = self.write("inner.py")
        pool = str(self.directory / "inner.pm")
        outer = self.write("outer.py", PROGRAM.replace("    print(", f"""\
    import subprocess
    def inner(*argv):
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout
    started = inner({self.commands.run!r}, "--pool", {pool!r}, "--python", sys.executable,
                    {inner!r})
    assert started[0] in (-9, 137), started
    assert inner({self.commands.recover!r}, {pool!r}) == (0, "__main__ 6\\n")
    print("""))
        self.chain([outer])

    def test_a_program_that_executes_another_is_told_so(self):
        """The command says so, since the other may never ask."""
        marker = self.directory / "marker"
        script = self.write("prog.py", textwrap.dedent(f"""
            import os, sys, time, pyheap
            pyheap.epoch(wait=True)
            os.execv("/bin/sh", ["sh", "-c", "while [ ! -e {marker} ]; do sleep 0.01; done"])
        """))
        keeper, target = self.start([self.commands.run, "--pool", self.pool, "--python",
                                     self.python, script])
        self.wait_until(lambda: "no more epochs can be taken" in self.err.read_text(),
                        "it says so")
        marker.touch()
        self.assertEqual(keeper.wait(60), 0)
        self.assertEqual(len(self.err.read_text().splitlines()), 1, self.err.read_text())

    def test_a_shebang_script_by_its_name(self):
        script = self.write("tool", f"#!/usr/bin/env python3\n{PROGRAM}", 0o755)
        self.assertEqual(shutil.which("tool", path=str(self.directory)), script)
        self.chain([script])
