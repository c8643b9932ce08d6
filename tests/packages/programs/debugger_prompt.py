# SPDX-License-Identifier: MIT
"""pdb waiting at its prompt while another thread takes the epoch; breakpoints, a changed local and
post mortem of a traceback that is kept.

live: rounds=30
"""
import io
import os
import pdb
import sys
import threading

import pyheap


def debugged(n):
    local = n
    debugger.set_trace()
    return local * 2


def commands(into, r, at_prompt):
    """What somebody types, slowly: the epoch comes while the prompt waits."""
    at_prompt.wait()
    pyheap.epoch("at the prompt")
    os.write(into, b"p local + 1\n!local = 500\nwhere\nc\n")


class Prompt:
    """Standard input of pdb: tells when it is read."""

    def __init__(self, fd):
        self.file = os.fdopen(fd, "r", buffering=1)
        self.at_prompt = threading.Event()

    def readline(self):
        self.at_prompt.set()
        return self.file.readline()


out, into = os.pipe()
prompt, typed = Prompt(out), io.StringIO()
debugger = pdb.Pdb(stdin=prompt, stdout=typed, nosigint=True, readrc=False)


def main():
    rounds = int(sys.argv[1])
    for r in range(rounds):
        prompt.at_prompt.clear()
        person = threading.Thread(target=commands, args=(into, r, prompt.at_prompt))
        person.start()
        result = debugged(r)
        sys.settrace(None)
        person.join()
        assert result in (1000, 2 * r), result
        assert f"{r + 1}\n" in typed.getvalue(), typed.getvalue()
        assert "debugged" in typed.getvalue()
        typed.seek(0)
        typed.truncate()
        try:
            {}["missing"]
        except KeyError as error:
            kept = error.__traceback__
        assert kept.tb_frame.f_locals["r"] == r
        if r % 10 == 0:
            print(r, result)


main()
