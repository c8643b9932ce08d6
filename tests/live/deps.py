#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""deps.py - scripts/deps waits for another apt-get, and says so; with stand-ins for Debian's tools

apt-get's words are those of apt 2.6 to 3.0.
"""
import os
import pathlib
import subprocess
import tempfile
import unittest

DEPS = pathlib.Path(__file__).resolve().parent.parent.parent / "scripts" / "deps"
HELD = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt-get)"


class Deps(unittest.TestCase):
    def run_deps(self, busy, error=HELD):
        """@return what it ended with and said, and how often apt-get ran, when that fails at
        first so many times."""
        with tempfile.TemporaryDirectory() as directory:
            self.tool(directory, "dpkg-query", "exit 1")
            self.tool(directory, "apt-cache", "echo '  Candidate: 1'")
            self.tool(directory, "id", "echo 0")
            self.tool(directory, "sleep", "")
            self.tool(directory, "apt-get", f"""
                echo >>{directory}/calls
                [ $(wc -l <{directory}/calls) -gt {busy} ] && exit
                echo '{error}' >&2
                exit 100""")
            done = subprocess.run([DEPS], env={"PATH": f"{directory}:{os.environ['PATH']}"},
                                  capture_output=True, text=True)
            calls = len(pathlib.Path(directory, "calls").read_text().splitlines())
        return done, calls

    def tool(self, directory, name, text):
        path = pathlib.Path(directory, name)
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)

    def test_a_lock_is_waited_for(self):
        done, calls = self.run_deps(3)
        self.assertEqual((done.returncode, calls), (0, 4), done.stderr)
        self.assertEqual(done.stdout.count("another apt-get or dpkg is running"), 1)

    def test_a_lock_is_not_waited_for_forever(self):
        done, calls = self.run_deps(1000)
        self.assertEqual(done.returncode, 1)
        self.assertIn("Try again when it has ended", done.stderr)
        self.assertLess(calls, 100)

    def test_other_failures_are_no_lock(self):
        done, calls = self.run_deps(1000, "E: Unable to locate package")
        self.assertEqual((done.returncode, calls), (1, 2))  # and once with lists fetched anew
        self.assertIn("Unable to locate", done.stderr)


if __name__ == "__main__":
    unittest.main()
