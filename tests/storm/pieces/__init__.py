# SPDX-License-Identifier: MIT
"""What random programs are composed of, by concern."""
from . import children, files, interpreter, memory, threads  # noqa: F401
from .base import ALL, ANYWHERE, MAIN, anew  # noqa: F401
