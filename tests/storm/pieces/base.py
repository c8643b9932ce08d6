# SPDX-License-Identifier: MIT
"""What all pieces have in common; ../program.py says what a piece must keep to."""
import ctypes
import importlib
import os
import shutil
import threading

ALL, ANYWHERE, MAIN = {}, {}, {}
PATIENCE = 120  # seconds that nothing here takes
libc = ctypes.CDLL(None, use_errno=True)


def piece(function, where=ANYWHERE):
    ALL[function.__name__] = where[function.__name__] = function
    return function


def main_piece(function):
    """One that only the main thread may drive: signals."""
    return piece(function, MAIN)


def start(function, *args, daemon=True):
    thread = threading.Thread(target=function, args=args, daemon=daemon)
    thread.start()
    return thread


def anew(path, flags):
    """An opener. What an earlier life has left in a file that was not open then is cut off."""
    return os.open(path, flags | os.O_CREAT | os.O_TRUNC, 0o644)


def remove_tree(path, remove=shutil.rmtree):
    """rmtree holds the inodes of two looks at a directory against each other, and one that was
    removed since the epoch is another one when it is back: docs/architecture.md."""
    while True:
        try:
            remove(path)
            return
        except OSError as error:
            if "symbolic link" not in str(error.args):
                raise


def end(thread):
    thread.join(PATIENCE)
    assert not thread.is_alive(), "a thread hangs"


def try_import(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
