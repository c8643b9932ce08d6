# SPDX-License-Identifier: MIT
"""ssl over memory BIOs: handshakes half-way at the epoch, and a session that lives through all.

live: rounds=30
"""
import pathlib
import ssl
import subprocess
import sys
import tempfile

import pyheap


def contexts():
    with tempfile.TemporaryDirectory() as directory:
        key, certificate = pathlib.Path(directory, "key"), pathlib.Path(directory, "cert")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key,
                        "-out", certificate, "-days", "2", "-subj", "/CN=test"], check=True,
                       stderr=subprocess.DEVNULL)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        client = ssl.create_default_context(cafile=certificate)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
    return server, client


class Pair:
    """Two ends of one connection, without sockets."""

    def __init__(self, server, client):
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server.wrap_bio(there, back, server_side=True)
        self.client = client.wrap_bio(back, there)

    def steps(self):
        """One end, then the other, until both have shaken hands."""
        waiting = [self.client, self.server]
        while waiting:
            for end in list(waiting):
                try:
                    end.do_handshake()
                    waiting.remove(end)
                except ssl.SSLWantReadError:
                    pass
                yield

    def say(self, text):
        self.client.write(text)
        assert self.server.read(1000) == text
        self.server.write(text[::-1])
        return self.client.read(1000)[::-1]


def main():
    rounds = int(sys.argv[1])
    server, client = contexts()
    lasting = Pair(server, client)
    for _ in lasting.steps():
        pass
    for r in range(rounds):
        pair = Pair(server, client)
        for i, _ in enumerate(pair.steps()):
            if i == r % 3:
                pyheap.epoch("a handshake half-way")
        text = b"message %d" % r
        assert pair.say(text) == text and lasting.say(text) == text
        if r % 10 == 0:
            print(r, pair.client.version(), lasting.client.cipher()[0])


main()
