# SPDX-License-Identifier: MIT
"""case_network - connections, servers, rings and devices: named at the epoch, made again by callbacks"""
import os
import re
import signal
import socket
import socketserver
import subprocess
import textwrap
import threading

from case import Case
from commands import PATIENCE

# Asks a server, which is another process, and goes on asking after each recovery.
CLIENT = """
    import os, socket, sys
    import pyheap
    def connect():
        global file
        file = socket.create_connection(("127.0.0.1", int(sys.argv[1]))).makefile("rw")
    def ask(number):
        print(number, file=file, flush=True)
        return int(file.readline())
    connect()
    pyheap.on_restore(connect)
    total = 0
    for number in range(40):
        total += ask(number)
        pyheap.epoch(wait=True)
        if number % 10 == 5 and pyheap.status()["recoveries"] <= number // 10:
            print("here", number, flush=True)
            ask(-1)  # the answer never comes
    print("total", total)
"""

# Listens; not while an epoch is taken, and on the same port whenever it goes on.
SERVER = """
    import socket, sys
    import pyheap
    listening = None
    def listen():
        global listening
        listening = socket.create_server(("127.0.0.1", listen.port))
        listen.port = listening.getsockname()[1]
        print("port", listen.port, flush=True)
    listen.port = 0
    listen()
    pyheap.on_epoch(lambda: listening.close())
    served = 0
    while served < 6:
        pyheap.epoch(wait=True)
        listen()
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"%d" % served)
        served += 1
    print("served", served)
"""


class Squares(socketserver.StreamRequestHandler):
    """Answers a number with its square, and what is negative with nothing."""

    def handle(self):
        for line in self.rfile:
            if int(line) >= 0:
                self.wfile.write(b"%d\n" % int(line) ** 2)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


class Network(Case):
    def kill(self, keeper, target):
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)

    def test_a_client_connects_again(self):
        """Four times, each with what it had asked before in its memory."""
        with Server(("127.0.0.1", 0), Squares) as server:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            self.addCleanup(server.shutdown)
            keeper, target = self.start(self.argv(CLIENT, server.server_address[1]))
            for number in range(5, 40, 10):
                self.wait_printed(f"here {number}\n")
                self.kill(keeper, target)
                keeper, target = self.start([self.commands.recover, self.pool])
            self.assertEqual(keeper.wait(PATIENCE), 0)
        self.wait_printed(f"total {sum(n * n for n in range(40))}\n")

    def port(self, times):
        """The last of so many that it has told, at one look: recovery cuts the output back."""
        found = []

        def told():
            found[:] = re.findall(r"port (\d+)\n", self.out.read_text())
            return len(found) >= times

        self.wait_until(told, "it listens")
        return int(found[-1])

    def test_a_server_is_closed_before_an_epoch_and_listens_again(self):
        """In strict mode: no epoch sees a socket, and clients find it where it was."""
        keeper, target = self.start(self.argv(SERVER, options=["--strict"]))
        for served in range(6):
            # What a recovered program prints stands where the killed one's stood.
            port = self.port(served + 2)
            if served in (2, 4):
                self.kill(keeper, target)
                keeper, target = self.start([self.commands.recover, "--strict", self.pool])
                self.wait_until(lambda: self.answers(port), "it listens again")
            with socket.create_connection(("127.0.0.1", port)) as client:
                self.assertEqual(client.recv(10), b"%d" % served)
        self.assertEqual(keeper.wait(PATIENCE), 0)
        self.wait_printed("served 6")
        self.assertNotIn("cannot come back", self.err.read_text())

    def answers(self, port):
        """Whether somebody listens, without becoming a client."""
        with open("/proc/net/tcp", encoding="ascii") as table:
            return any(f":{port:04X} 00000000:0000 0A" in line for line in table)

    def raised_in_strict_mode(self, prepare):
        """What an epoch in this state says."""
        return self.run_program(f"""
            import ctypes, os, pyheap
            {prepare}
            try:
                pyheap.epoch()
            except pyheap.UnsupportedError as error:
                print(error)
        """, options=["--strict"])

    def test_a_ring_is_an_error_in_strict_mode(self):
        done = self.raised_in_strict_mode(
            "ring = ctypes.CDLL(None).syscall(425, 4, (ctypes.c_uint32 * 30)())\n"
            "            if ring < 0: raise SystemExit(3)")
        if done.returncode == 3:
            self.skipTest("the system does not allow an io_uring")
        self.assert_ended(done)
        self.assertIn("cannot come back: descriptor", done.stdout)
        self.assertIn("(an io_uring)", done.stdout)
        self.assertEqual(done.stderr, "")

    def test_libuv_gets_no_ring_and_others_do(self):
        """It would end a recovered program; it is known by a name among its constants."""
        for name, text in ("libuv", "UV_USE_IO_URING"), ("others", ""):
            subprocess.run(["cc", "-shared", "-fPIC", "-o", self.directory / f"{name}.so",
                            "-xc", "-"], input=f"""
                               #include <unistd.h>
                               const char text[] = "{text}";
                               int ring(void) {{ int p[30] = {{0}}; return syscall(425, 4, p); }}
                           """, text=True, check=True)
        done = self.run_program("""
            import ctypes, errno, os, pyheap
            libuv, others = (ctypes.CDLL(f"./{name}.so", use_errno=True)
                             for name in ("libuv", "others"))
            assert libuv.ring() == -1 and ctypes.get_errno() == errno.ENOSYS
            pyheap.epoch()
            print(others.ring() >= 0)
            pyheap.epoch()
        """)
        self.assert_ended(done)
        self.assertEqual(done.stderr.count("an io_uring"), done.stdout.count("True"), done.stderr)

    def test_devices_are_named_once(self):
        devices = [path for path in ("/dev/fuse", "/dev/kvm", "/dev/net/tun")
                   if os.access(path, os.R_OK | os.W_OK)]
        opening = f"held = [os.open(path, os.O_RDWR) for path in {devices}]"
        if not devices:
            self.skipTest("no device that this user may open")
        done = self.run_program(textwrap.dedent(f"""
            import os, pyheap
            {opening}
            plain = [open(path, "rb") for path in ("/dev/null", "/dev/zero", "/dev/urandom")]
            pyheap.epoch()
            pyheap.epoch(wait=True)
            print(held)
        """))
        self.assert_ended(done)
        for path in devices:
            self.assertEqual(done.stderr.count(f"({path}) cannot come back"), 1, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), len(devices), done.stderr)
        os.remove(self.pool)
        done = self.raised_in_strict_mode(opening)
        self.assert_ended(done)
        for path in devices:
            self.assertIn(f"({path})", done.stdout)

    def test_a_device_is_dead_after_a_recovery(self):
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            self.skipTest("/dev/fuse may not be opened by this user")
        done = self.run_program("""
            import os, signal, pyheap
            fd = os.open("/dev/fuse", os.O_RDWR)
            pyheap.epoch(wait=True)
            if not pyheap.status()["recoveries"]:
                os.kill(os.getpid(), signal.SIGKILL)
            print("read", os.read(fd, 1))
        """)
        self.assert_killed(done.returncode, signal.SIGKILL)
        done = self.recover()
        self.assert_ended(done)
        self.assertEqual(done.stdout, "read b''\n")
