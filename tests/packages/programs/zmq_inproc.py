# SPDX-License-Identifier: MIT
"""pyzmq: sockets within the process (threads of libzmq's, eventfd, epoll), messages that wait,
a poller, a thread that blocks in recv.

live: rounds=40 needs=zmq
"""
import sys
import threading

import pyheap
import zmq


def doubling(context):
    server = context.socket(zmq.REP)
    server.bind("inproc://double")
    while (n := server.recv_json()) is not None:
        server.send_json(2 * n)
    server.send_json(None)
    server.close()


def main():
    rounds = int(sys.argv[1])
    context = zmq.Context(io_threads=2)
    thread = threading.Thread(target=doubling, args=(context,))
    thread.start()
    client = context.socket(zmq.REQ)
    client.connect("inproc://double")
    out, into = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    out.bind("inproc://pipe")
    into.connect("inproc://pipe")
    poller = zmq.Poller()
    poller.register(out, zmq.POLLIN)
    waiting = []
    for r in range(rounds):
        into.send_multipart([b"%d" % r, bytes(range(256)) * 50])
        waiting.append(r)
        client.send_json(r)
        pyheap.epoch()
        assert client.recv_json() == 2 * r
        if r % 3 == 2:
            while poller.poll(0 if waiting == [] else 60_000):
                number, content = out.recv_multipart()
                assert int(number) == waiting.pop(0) and len(content) == 12800
        if r % 10 == 0:
            print(r, len(waiting))
    client.send_json(None)
    client.recv_json()
    thread.join()
    for sock in (client, out, into):
        sock.close(linger=0)
    context.term()
    print("ended")


main()
