# SPDX-License-Identifier: MIT
"""epoch() flushes sys.stdout and sys.stderr, whatever they are."""
import io
import os
import sys

import pyheap

real = sys.stdout


class Failing(io.StringIO):
    def flush(self):
        raise OSError(28, "no room")


for odd in (None, io.StringIO(), object()):
    sys.stdout = sys.stderr = odd
    assert pyheap.epoch() > 0
closed = io.StringIO()
closed.close()
sys.stdout = sys.stderr = closed
before = pyheap.epoch()
sys.stdout = Failing()
try:
    pyheap.epoch()
except OSError as error:
    assert error.errno == 28
else:
    raise AssertionError("the error is lost")
sys.stdout = None
sys.stderr = Failing()
try:
    pyheap.epoch()
except OSError as error:
    assert error.errno == 28
else:
    raise AssertionError("the error is lost")
sys.stdout, sys.stderr = real, sys.__stderr__
assert pyheap.status()["epoch"] == before
del sys.stdout
assert pyheap.epoch() == before + 1
sys.stdout = real
print("ok", end="")  # no newline, so that nothing but epoch() flushes it
pyheap.epoch()
os._exit(0)
