# SPDX-License-Identifier: MIT
"""redis: a client whose connection is lost with the process and made again in pyheap.on_restore, to
a small server of this program's own, which listens again on the port it had.

live: rounds=30 needs=redis
"""
import socketserver
import sys
import threading

import pyheap
import redis

values = {}


class Handler(socketserver.StreamRequestHandler):
    """As much of the protocol as the client asks for."""

    def handle(self):
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size + 2)[:-2])
            self.wfile.write(self.answer(*words))

    def answer(self, command, *words):
        if command == b"SET":
            values[words[0]] = words[1]
        elif command == b"GET":
            value = values[words[0]]
            return b"$%d\r\n%s\r\n" % (len(value), value)
        elif command not in (b"CLIENT", b"PING"):
            return b"-ERR unknown command\r\n"
        return b"+OK\r\n"


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


def serve(port=0):
    server = Server(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


def main():
    rounds = int(sys.argv[1])
    state = {"server": serve()}
    client = redis.Redis(port=state["server"].server_address[1], protocol=2)

    def again():
        port = state["server"].server_address[1]
        state["server"].server_close()
        state["server"] = serve(port)
        client.connection_pool.disconnect()

    if hasattr(pyheap, "on_restore"):
        pyheap.on_restore(again)
    for r in range(rounds):
        client.set(f"key {r}", r * r)
        pyheap.epoch()
        assert int(client.get(f"key {r // 2}")) == (r // 2) ** 2
        if r % 10 == 0:
            print(r, len(values))
    state["server"].shutdown()


main()
