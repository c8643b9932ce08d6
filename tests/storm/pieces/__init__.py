# SPDX-License-Identifier: MIT
"""What random programs are composed of, by concern."""
from . import children, files, interpreter, memory, names, network, threads  # noqa: F401
from .base import ALL, ANYWHERE, MAIN, anew  # noqa: F401

FORKING = {"forks", "workers"}
UNFORKABLE = {"traced_memory", "inner"}  # children of theirs wait for locks of Python's
