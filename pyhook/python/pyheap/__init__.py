# SPDX-License-Identifier: MIT
"""Save the running program so that it can go on after a crash.

This is the package for plain Python, where nothing is saved: every function is there and does
nothing, so that one script serves both. Under pyheap-run the module that is built into the
interpreter is imported in its place, and pyheap.active is True.
"""

import os as _os

__version__ = "0.1.0"

active = False


class Error(RuntimeError):
    """An epoch could not be taken. The base of pyheap's errors."""


class KeeperError(Error):
    """The keeper, the process that owns the pool, is gone: no epoch can be taken any more."""


class PoolFullError(Error):
    """The disk or the pool has no room for the epoch."""


class ForkError(Error):
    """Called in a forked child; only the program that pyheap-run started can take epochs."""


class ThreadError(Error):
    """A thread could not be stopped, or the caller does not hold the GIL."""


class UnsupportedError(Error):
    """The kernel, or something that the program holds, does not allow saving the program."""


def epoch(label=None, wait=False):
    """Save nothing and return 0."""
    return 0


def sync():
    """Return 0: no epoch is durable."""
    return 0


def status():
    """Return the dict that the built-in module gives, with every figure 0."""
    counts = dict.fromkeys(
        (
            "epoch",
            "durable",
            "recoveries",
            "pages_staged",
            "pages_ahead",
            "bytes_staged",
            "pages_written",
            "bytes_written",
            "total_pages_staged",
            "total_bytes_staged",
            "total_pages_written",
            "total_bytes_written",
            "staging_size",
        ),
        0,
    )
    times = dict.fromkeys(("pause", "wait", "commit"), 0.0)
    return {**counts, **times, "tracker": ""}


def on_epoch(callback, /):
    """Return callback, which is never called."""
    if not callable(callback):
        raise TypeError("on_epoch() needs a callable")
    return callback


def keep_file(file, /):
    """Return file, which is a path, an open file or a descriptor."""
    if not isinstance(file, int) and not hasattr(file, "fileno"):
        _os.fspath(file)
    return file


def on_restore(callback, /):
    """Return callback, which is never called."""
    if not callable(callback):
        raise TypeError("on_restore() needs a callable")
    return callback
