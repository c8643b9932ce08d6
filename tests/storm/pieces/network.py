# SPDX-License-Identifier: MIT
"""Connections, which a recovery breaks and a callback makes again."""
import socket
import time

try:
    import pyheap
except ImportError:
    import plain as pyheap

from .base import PATIENCE, piece


@piece
def connections(me):
    """A client and its server on loopback, both here."""
    made = []

    def connect():
        try:
            with socket.create_server(("127.0.0.1", 0)) as server:
                client = socket.create_connection(server.getsockname(), PATIENCE)
                made.append((client, server.accept()[0]))
        except OSError:  # an epoch in here, and a recovery, which has connected as well
            if not made:
                connect()
    connect()
    if pyheap.active:
        pyheap.on_restore(connect)
    for r in me.rounds:
        while True:
            number = len(made)
            client, there = made[-1]
            there.settimeout(PATIENCE)
            try:
                client.sendall(b"%d\n" % r)
                yield
                if got := there.recv(100):
                    break
            except OSError:
                pass
            limit = time.monotonic() + PATIENCE
            while not made[number:]:
                assert time.monotonic() < limit, "nothing has made a dead connection again"
                yield
        assert got == b"%d\n" % r
        while len(made) > 1:
            for end in made.pop(0):
                end.close()
        me.say(r)
    for pair in made:
        for end in pair:
            end.close()
