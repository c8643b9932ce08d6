# SPDX-License-Identifier: MIT
"""Connections, which a recovery breaks and a callback makes again."""
import os
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


@piece
def named_sockets(me):
    """Servers that have a name among the files, which their next life must find free again."""
    for r in me.rounds:
        name, got = f"{me.name}.socket{r % 3}", b""
        while not got:
            kind = socket.SOCK_STREAM if r % 2 else socket.SOCK_DGRAM
            with socket.socket(socket.AF_UNIX, kind) as server, \
                    socket.socket(socket.AF_UNIX, kind) as client:
                for end in (server, client):
                    end.settimeout(PATIENCE)
                server.bind(name)
                try:
                    if r % 2:
                        server.listen()
                    client.connect(name)
                    yield
                    client.sendall(b"%d" % r)
                    with server.accept()[0] if r % 2 else server.dup() as there:
                        there.settimeout(PATIENCE)
                        got = there.recv(99)
                except OSError:  # a recovery has broken it
                    pass
            os.unlink(name)
            yield
        assert got == b"%d" % r
        me.say(r)
