# SPDX-License-Identifier: MIT
"""gRPC: a server and a client in one process, with threads of their own in C++; both are made anew in a
callback after a recovery, and what was under way then is asked again.

live: rounds=40 needs=grpc
"""
import os
import sys
import threading
from concurrent import futures

import grpc
import pyheap


class Numbers(grpc.GenericRpcHandler):
    """Answers each message of a stream with the sum of what has come so far."""

    def service(self, details):
        if details.method == "/numbers/sum":
            return grpc.stream_stream_rpc_method_handler(self.sum)
        return None

    @staticmethod
    def sum(messages, context):
        total = 0
        for message in messages:
            total += int(message)
            yield b"%d" % total


class Connection:
    def __init__(self):
        self.lock = threading.Lock()
        self.make()
        pyheap.on_restore(self.make_anew)

    def make(self):
        self.server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Numbers()])
        self.server.add_insecure_port("unix:socket")
        self.server.start()
        self.channel = grpc.insecure_channel("unix:socket")
        grpc.channel_ready_future(self.channel).result(30)

    def make_anew(self):
        with self.lock:
            self.close()
            self.make()

    def close(self):
        self.channel.close()
        self.server.stop(None).wait(30)
        if os.path.exists("socket"):
            os.remove("socket")


def main():
    rounds = int(sys.argv[1])
    connection = Connection()

    def ask(channel, numbers, in_the_middle):
        call = channel.stream_stream("/numbers/sum")(b"%d" % n for n in numbers)
        found = []
        for answer in call:
            found.append(int(answer))
            if len(found) == 3:
                in_the_middle()
        return found

    epochs = []
    for r in range(rounds):
        numbers, found = range(r, r + 6), None
        while found is None:
            with connection.lock:  # not while it is being made
                channel = connection.channel
            try:
                found = ask(channel, numbers, lambda: len(epochs) > r
                            or epochs.append(pyheap.epoch()))
            except (grpc.RpcError, ValueError) as error:  # the channel is of the killed program
                assert pyheap.status()["recoveries"], error
        assert found == [sum(range(r, r + 1 + i)) for i in range(6)], found
        assert len(epochs) == r + 1
        if r % 10 == 0:
            print(r, found[-1])
    connection.close()


main()
