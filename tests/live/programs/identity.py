# SPDX-License-Identifier: MIT
"""Pid, arguments, environment, working directory and umask stay what they were.

live: rounds=60 arguments={rounds},argument,two
"""
import os
import sys
import threading

try:
    import pyheap
except ImportError:
    import plain as pyheap


def state():
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "pid": os.getpid(),
        "argv": list(sys.argv),
        "word": os.environ["LIVE_WORD"],
        "home": os.environ.get("HOME"),
        "cwd": os.getcwd(),
        "umask": umask,
        "uid": os.getuid(),
        "thread": threading.get_ident(),
        "argv in the kernel": open("/proc/self/cmdline", "rb").read(),
    }


def main():
    rounds = int(sys.argv[1])
    os.mkdir("inner")
    os.chdir("inner")
    os.umask(0o027)
    os.environ["LIVE_CHANGED"] = "by the program"
    first = state()
    for r in range(rounds):
        busy = sum(i * i for i in range(60000))
        pyheap.epoch()
        now = state()
        assert now == first, [(name, first[name], now[name]) for name in first
                              if first[name] != now[name]]
        assert os.environ["LIVE_CHANGED"] == "by the program"
        with open(f"made-{r % 10}.txt", "w", encoding="ascii") as file:
            file.write(f"{r} {busy}\n")
    print(first["word"], os.path.basename(first["cwd"]), oct(first["umask"]), first["argv"][2:])


main()
