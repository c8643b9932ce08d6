# SPDX-License-Identifier: MIT
"""pytest: a session with fixtures, parameters and captured output; each test takes an epoch.

live: rounds=60 needs=pytest
"""
import shutil
import sys

import pyheap
import pytest

TESTS = """
import sys
import pyheap
import pytest

@pytest.fixture(scope="module")
def seen():
    seen = []
    yield seen
    assert seen == list(range(int(sys.argv[1])))

@pytest.mark.parametrize("n", range(int(sys.argv[1])))
def test_epoch(n, seen, tmp_path, capsys):
    (tmp_path / "file").write_text(str(n))
    print("captured", n)
    pyheap.epoch()
    assert capsys.readouterr().out == f"captured {n}\\n"
    assert (tmp_path / "file").read_text() == str(n)
    seen.append(n)
"""


class Count:
    """A plugin that counts."""
    passed = 0

    def pytest_runtest_logreport(self, report):
        self.passed += report.when == "call" and report.passed


def main():
    rounds = int(sys.argv[1])
    with open("test_epochs.py", "w") as file:
        file.write(TESTS)
    count = Count()
    status = pytest.main(["-p", "no:cacheprovider", "-p", "no:terminal",
                          "--import-mode=importlib", "--basetemp=made", "test_epochs.py"],
                         plugins=[count])
    print(int(status), count.passed, pyheap is sys.modules["pyheap"])
    shutil.rmtree("made", ignore_errors=True)
    shutil.rmtree("__pycache__", ignore_errors=True)


main()
