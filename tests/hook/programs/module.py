# SPDX-License-Identifier: MIT
"""The built-in module has the names of the package and its stubs, and does what they say."""
import ast
import ctypes
import importlib.util
import inspect
import os
import signal
import sys
import threading
import time

import pyheap

package_directory = sys.argv[1]


def load_package():
    path = os.path.join(package_directory, "__init__.py")
    spec = importlib.util.spec_from_file_location("plain_pyheap", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public(names):
    return {name for name in names if not name.startswith("_") or name == "__version__"}


def raised(function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except Exception as error:
        return error
    raise AssertionError("nothing raised")


# The three descriptions agree.
plain = load_package()
with open(os.path.join(package_directory, "__init__.pyi")) as file:
    stub = ast.parse(file.read())
stub_names = set()
for node in stub.body:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        stub_names.add(node.name)
    elif isinstance(node, ast.AnnAssign):
        stub_names.add(node.target.id)
assert public(vars(pyheap)) == public(vars(plain)) == public(stub_names)
assert pyheap.__version__ == plain.__version__
for name in public(vars(pyheap)):
    ours, theirs = getattr(pyheap, name), getattr(plain, name)
    if isinstance(ours, type):
        assert [c.__name__ for c in ours.__mro__] == [c.__name__ for c in theirs.__mro__]
        assert ours.__doc__ and ours.__module__ == "pyheap", name
    elif callable(ours):
        assert inspect.signature(ours) == inspect.signature(theirs), name
        assert ours.__doc__, name
status, plain_status = pyheap.status(), plain.status()
assert list(status) == list(plain_status)
assert [type(v) for v in status.values()] == [type(v) for v in plain_status.values()]
for node in stub.body:
    if isinstance(node, ast.ClassDef) and node.name == "_Status":
        assert [field.target.id for field in node.body] == list(status)
assert pyheap.active is True and plain.active is False
assert plain.epoch() == plain.epoch("x", wait=True) == plain.sync() == 0
assert "pyheap" in sys.builtin_module_names and pyheap.__doc__

# Epochs.
assert pyheap.status()["epoch"] == 0 and pyheap.sync() == 0
assert pyheap.epoch() == 1
assert pyheap.epoch("a label") == 2
assert pyheap.epoch(label="süß " * 1000, wait=True) == 3
assert pyheap.status()["durable"] == 3
assert pyheap.epoch(None, False) == 4
assert pyheap.sync() == 4
now = pyheap.status()
assert now["epoch"] == now["durable"] == 4 and now["recoveries"] == 0
assert isinstance(raised(pyheap.epoch, 5), TypeError)
assert isinstance(raised(pyheap.epoch, "a\0b"), ValueError)
assert isinstance(raised(pyheap.epoch, unknown=1), TypeError)
assert isinstance(raised(pyheap.on_restore, 5), TypeError)
assert pyheap.status()["epoch"] == 4


@pyheap.on_restore
def callback():
    raise AssertionError("nothing was recovered")


assert callable(callback)
assert pyheap.epoch() == 5

# From C: with the GIL, without it, and in a thread that Python does not know.
assert ctypes.PyDLL(None).pyheap_epoch(b"from C") == 0
assert pyheap.status()["epoch"] == 6
assert ctypes.CDLL(None).pyheap_epoch(b"without the GIL") == -1024
libc = ctypes.CDLL(None)
thread = ctypes.c_ulong()
result = ctypes.c_void_p()
entry = ctypes.cast(libc.pyheap_epoch, ctypes.c_void_p)
assert libc.pthread_create(ctypes.byref(thread), None, entry, None) == 0
assert libc.pthread_join(thread, ctypes.byref(result)) == 0
assert ctypes.c_int(result.value & 0xFFFFFFFF).value == -1024
assert pyheap.status()["epoch"] == 6

# From another thread, and while others run.
numbers = []
stop = threading.Event()
spinner = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
spinner.start()
workers = [threading.Thread(target=lambda: numbers.append(pyheap.epoch(wait=True)))
           for _ in range(4)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
stop.set()
spinner.join()
assert sorted(numbers) == [7, 8, 9, 10], numbers

# The pid is one's own.
hits = []
signal.signal(signal.SIGUSR1, lambda *_: hits.append(os.getpid()))
os.kill(os.getpid(), signal.SIGUSR1)
while not hits:
    time.sleep(0.001)
assert hits == [os.getpid()]
assert isinstance(raised(os.kill, 2**22 + 1, 0), ProcessLookupError)
assert os.readlink("/proc/self") == str(os.getpid())

# A second import is the same module.
first, errors = pyheap.epoch, pyheap.Error
del sys.modules["pyheap"]
import pyheap
assert pyheap.Error is errors and pyheap.epoch() == 11
print("ok")
