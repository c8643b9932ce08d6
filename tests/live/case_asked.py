# SPDX-License-Identifier: MIT
"""case_asked - epochs without the program's doing; other machines, other kernels, other times"""
import os
import shutil
import signal
import subprocess
import sys
import time

from case import COUNTING, Case
from commands import PATIENCE
from denied import denying

# A program that never heard of pyheap: it computes, waits in a thread, and prints.
UNAWARE = """
    import hashlib, sys, threading, time
    def digest(n):
        h = hashlib.sha256()
        for i in range(n):
            h.update(b"%d" % i)
            yield h.hexdigest()
    stop = threading.Event()
    waiter = threading.Thread(target=stop.wait)
    waiter.start()
    steps = int(sys.argv[1])
    for i, text in enumerate(digest(steps * 1000)):
        if i % 1000 == 0:
            print(i, text, flush=True)
            time.sleep(0.002)
    stop.set()
    waiter.join()
    print("done", "pyheap" in sys.modules)
"""


class Asked(Case):
    """pyheap-run --every, --on-signal, --final-epoch."""

    def expected(self, steps):
        done = self.finish([self.python, self.script(UNAWARE), str(steps)])
        return done.stdout.replace("done False", "done True")

    def labels(self):
        """Of the recoverable epochs, oldest first."""
        _, epochs, _ = self.commands.list(self.pool)
        return [" ".join(epochs[n].split()[5:]) for n in sorted(epochs)]

    def test_a_program_that_never_heard_of_pyheap_goes_on(self):
        expected = self.expected(800)
        keeper, target = self.start(self.argv(UNAWARE, 800, options=["--every", "50ms"]))
        for round_ in range(3):
            self.wait_epoch(3 * round_ + 2)
            target.signal(signal.SIGKILL)
            keeper.wait(PATIENCE)
            self.assertEqual(set(self.labels()), {"clock"})
            keeper, target = self.start([self.commands.recover, "--every", "0.05", self.pool])
        self.assertEqual(keeper.wait(PATIENCE), 0, self.err.read_text())
        self.assertEqual(self.out.read_text(), expected)

    def test_recovered_without_the_options_nobody_asks_any_more(self):
        keeper, target = self.start(self.argv(UNAWARE, 600, options=["--every", "50ms"]))
        self.wait_epoch(2)
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)
        newest = self.commands.newest(self.pool)
        self.assert_ended(self.finish([self.commands.recover, self.pool]))
        self.assertEqual(self.commands.newest(self.pool), newest)

    def test_options_can_come_with_the_recovery(self):
        self.killed(steps=400, epochs=2)
        keeper, target = self.start([self.commands.recover, "--on-signal", "USR2", self.pool])
        self.wait_epoch(20)
        keeper.send_signal(signal.SIGUSR2)
        self.wait_until(lambda: "signal" in self.labels(), "the signal has taken an epoch")

    def test_a_signal_takes_one_and_does_not_reach_the_program(self):
        keeper, target = self.start(self.argv(UNAWARE, 2000, options=["--on-signal", "SIGUSR1"]))
        self.wait_printed("1000 ")
        self.assertEqual(self.commands.newest(self.pool), 0)
        keeper.send_signal(signal.SIGUSR1)  # would end the program
        self.wait_epoch(1)
        keeper.send_signal(signal.SIGUSR1)
        self.wait_epoch(2)
        self.assertEqual(self.labels(), ["signal"] * 2)

    def test_the_final_epoch_is_durable_and_the_last_thing_that_happens(self):
        steps = 1000
        expected = self.expected(steps)
        keeper, target = self.start(self.argv(UNAWARE, steps, options=["--final-epoch"]))
        self.wait_printed("5000 ")
        keeper.send_signal(signal.SIGTERM)
        self.assert_killed(keeper.wait(PATIENCE), signal.SIGTERM)
        self.assertEqual(self.labels(), ["final"])
        self.assertIn("pyheap-recover", self.err.read_text())
        self.assertLess(len(self.out.read_text()), len(expected))
        keeper, target = self.start([self.commands.recover, self.pool])
        self.assertEqual(keeper.wait(PATIENCE), 0, self.err.read_text())
        self.assertEqual(self.out.read_text(), expected)

    def test_signals_that_all_processes_of_a_job_get(self):
        """As timeout(1), systemd and batch systems send them; or to the program alone."""
        text = UNAWARE.replace("    steps =", """
    import multiprocessing, signal
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,))
    other.start()
    other.terminate()
    other.join()
    assert other.exitcode == -signal.SIGTERM, other.exitcode
    steps =""")
        steps = 4000
        expected = self.expected(steps)
        options = ["--on-signal", "USR1", "--final-epoch"]
        keeper, target = self.start(self.argv(text, steps, options=options),
                                    start_new_session=True)
        self.wait_printed("\n1000 ")
        os.killpg(keeper.pid, signal.SIGUSR1)
        self.wait_epoch(1)
        target.signal(signal.SIGUSR1)
        self.wait_epoch(2)
        for again, end in ((options, lambda: os.killpg(keeper.pid, signal.SIGTERM)),
                           ([], lambda: target.signal(signal.SIGTERM))):
            lines = len(self.out.read_text())
            self.wait_until(lambda: len(self.out.read_text()) > lines, "it goes on")
            end()
            self.assert_killed(keeper.wait(PATIENCE), signal.SIGTERM)
            self.assertEqual(self.labels()[-1], "final")
            keeper, target = self.start([self.commands.recover, *again, self.pool],
                                        start_new_session=True)
        self.assertEqual(keeper.wait(PATIENCE), 0, self.err.read_text())
        self.assertEqual(self.out.read_text(), expected)

    def test_a_program_that_is_stopped_and_let_go_on(self):
        """At whatever moment of an epoch: a recovered one is not stopped. That another signal waits
        makes the epoch look for those, last for the main thread's, which takes a while."""
        text = """
            import os, signal, threading
            import pyheap
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
            os.kill(os.getpid(), signal.SIGUSR1)
            never = threading.Event()
            for _ in range(30):
                threading.Thread(target=never.wait).start()
            def epochs():
                n = 0
                while True:
                    pyheap.epoch()
                    n += 1
                    print(n, flush=True)
            threading.Thread(target=epochs).start()
            """
        keeper, target = self.start(self.argv(text))
        self.wait_epoch(1)
        for _ in range(25):
            time.sleep(0.1)
            target.signal(signal.SIGSTOP)
            time.sleep(0.05)
            target.signal(signal.SIGKILL)
            keeper.wait(PATIENCE)
            lines = len(self.out.read_text())
            keeper, target = self.start([self.commands.recover, self.pool])
            self.wait_until(lambda: len(self.out.read_text()) > lines, "it goes on")

    def test_what_a_program_sends_to_itself_is_its_own(self):
        options = ["--on-signal", "USR1", "--final-epoch"]
        for number, how in ((signal.SIGTERM, "os.kill(os.getpid(), {})"),
                            (signal.SIGUSR1, "signal.raise_signal({})")):
            done = self.run_program("import os, signal\n" + how.format(int(number)),
                                    options=[*options, "--fresh"])
            self.assert_killed(done.returncode, number)

    def test_what_it_has_sent_to_a_thread_and_not_got_yet_it_gets(self):
        """In the recovered program, too."""
        done = self.run_program("""
            import os, signal, pyheap
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
            signal.raise_signal(signal.SIGUSR1)
            pyheap.epoch(wait=True)
            if not pyheap.status()["recoveries"]:
                os.kill(os.getpid(), signal.SIGKILL)
            print(signal.sigtimedwait([signal.SIGUSR1], 1).si_signo == signal.SIGUSR1)
        """, options=["--on-signal", "USR1"])
        self.assert_killed(done.returncode, signal.SIGKILL)
        done = self.recover("--on-signal", "USR1")
        self.assert_ended(done)
        self.assertEqual(done.stdout, "True\n")

    def test_without_a_final_epoch_the_program_gets_its_sigterm(self):
        keeper, target = self.start(self.argv("""
            import os, signal, sys, time
            class Full:
                closed = False
                def write(self, text): pass
                def flush(self): raise OSError("its stdout cannot be flushed")
            signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
            print("ready", flush=True)
            sys.stdout = Full()
            while True:
                time.sleep(0.01)
        """, options=["--final-epoch"]))
        self.wait_printed("ready")
        keeper.send_signal(signal.SIGTERM)
        self.assertEqual(keeper.wait(PATIENCE), 9, self.err.read_text())
        self.assertIn("no final epoch", self.err.read_text())

    def test_wrong_values_are_refused(self):
        for option in (["--every", "0"], ["--every", "5x"], ["--on-signal", "KILL"],
                       ["--on-signal", "NOPE"]):
            self.assert_refused(self.run_program("pass", options=option), "PH_EUSAGE", option[0])


class Denied(Case):
    """Kernels and containers that do not let changes be tracked: slower, but right."""

    SPARSE = """
        import pyheap, sys
        data = bytearray(4 << 20)
        for step in range(60):
            data[step * 50000] = step + 1
            pyheap.epoch(wait=True)
            print(step, sum(data), flush=True)
        status = pyheap.status()
        print(status["tracker"], status["pages_written"] < 200, status["pages_staged"] > 1000)
    """

    def chain(self, *calls):
        install = denying(*calls)
        keeper, target = self.start(self.argv(self.SPARSE), preexec_fn=install)
        self.wait_epoch(5)
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)
        keeper, target = self.start([self.commands.recover, self.pool], preexec_fn=install)
        self.assertEqual(keeper.wait(PATIENCE), 0, self.err.read_text())
        lines = self.out.read_text().splitlines()
        sums = [f"{s} {sum(range(1, s + 2))}" for s in range(60)]
        self.assertEqual(lines[:-1], sums)
        return lines[-1]

    def test_without_userfaultfd(self):
        self.assertEqual(self.chain("userfaultfd"), "compare True True")

    def test_without_the_scan_either(self):
        self.assertEqual(self.chain("userfaultfd", "PAGEMAP_SCAN"), "compare True True")

    def test_a_kernel_that_has_both_tracks(self):
        self.assertEqual(self.chain(), "userfaultfd True False")


class Limits(Case):
    """What a limit does not allow is said, and nothing else is blamed."""

    def limited(self, argv, kib):
        return self.finish(["/bin/sh", "-c", f'ulimit -v {kib}; exec "$@"', "sh", *argv])

    def test_address_space(self):
        """A program needs no more addresses than there are; the staging ring, and a pool that
        was made without a limit, may."""
        for kib in (4 << 20, 300 << 20):
            self.assert_ended(self.limited(self.argv("import pyheap; pyheap.epoch(wait=True)"),
                                           kib))
        done = self.limited(self.argv("pass"), 300 << 10)
        self.assert_refused(done, "PH_ENOMEM", "ulimit -v")
        self.killed()
        self.assert_refused(self.limited([self.commands.recover, self.pool], 4 << 20),
                            "PH_ENOMEM", "ulimit -v")
        self.assert_ended(self.recover())

    def test_few_descriptors(self):
        keeper, target = self.start(["/bin/sh", "-c", 'ulimit -n 64; exec "$@"', "sh",
                                     *self.argv(COUNTING, 100)])
        self.wait_epoch(3)
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)
        done = self.finish(["/bin/sh", "-c", 'ulimit -n 64; exec "$@"', "sh",
                            self.commands.recover, self.pool])
        self.assert_ended(done)


class Closed(Case):
    """Programs that close descriptors that are not theirs."""

    def test_all_of_them(self):
        done = self.run_program("""
            import os, pyheap
            pyheap.epoch(wait=True)
            os.closerange(3, 4096)
            try:
                pyheap.epoch()
            except pyheap.KeeperError as error:
                print(error)
        """)
        self.assert_ended(done)
        self.assertIn("closed pyheap's descriptor", done.stdout)

    def test_those_that_track(self):
        keeper, target = self.start(self.argv("""
            import os, pyheap, time
            data = bytearray(100000)
            for step in range(40):
                data[step * 1000] = step
                pyheap.epoch()
                for fd in os.listdir("/proc/self/fd") if step % 5 == 0 else ():
                    if os.path.exists(link := f"/proc/self/fd/{fd}"):
                        name = os.readlink(link)
                        if "userfaultfd" in name or name.endswith("/pagemap"):
                            os.close(int(fd))
                time.sleep(0.01)
            print(sum(data), pyheap.status()["recoveries"])
        """))
        self.wait_epoch(8)
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)
        self.assertEqual(self.recover().stdout, f"{sum(range(40))} 1\n")


class Secrets(Case):
    """Two recoveries of one epoch share nothing that should be secret."""

    DRAWING = """
        import ctypes, hashlib, os, random, secrets, ssl, sys, uuid
        import pyheap
        random.seed(5)
        ssl.RAND_bytes(8), ssl.RAND_bytes(1)
        drawn = ctypes.create_string_buffer(16)
        with open("/proc/self/maps") as maps:
            crypto = [line.split()[-1] for line in maps if "libcrypto" in line][:1]
        crypto = ctypes.CDLL(crypto[0]) if crypto else None
        if not hasattr(crypto, "OSSL_LIB_CTX_new"):  # none, or OpenSSL 1
            crypto = None
        else:  # generators of a context of its own, for which nobody can seed
            crypto.OSSL_LIB_CTX_new.restype = ctypes.c_void_p
            context = ctypes.c_void_p(crypto.OSSL_LIB_CTX_new())
            assert crypto.RAND_bytes_ex(context, drawn, ctypes.c_size_t(16), 0) == 1
        inside, others = ctypes.CDLL(os.path.abspath("inside.so")), ctypes.CDLL("./others.so")
        assert inside.forked_id() == others.forked_id() == os.getpid()
        pyheap.epoch(wait=True)
        if not pyheap.status()["recoveries"]:
            os.kill(os.getpid(), 9)
        if crypto:
            assert crypto.RAND_bytes_ex(context, drawn, ctypes.c_size_t(16), 0) == 1
            print("context", drawn.raw.hex())
        assert inside.forked_id() == inside.forked_id() and others.forked_id() == os.getpid()
        print("inside", inside.forked_id())
        print("ssl", ssl.RAND_bytes(16).hex())
        print("urandom", os.urandom(16).hex())
        print("secrets", secrets.token_hex(16))
        print("uuid", uuid.uuid4())
        print("system", random.SystemRandom().random())
        print("getrandom", os.getrandom(16).hex())
        print("salt", hashlib.scrypt(b"", salt=os.urandom(16), n=2, r=8, p=1).hex()[:40])
        print("unseeded", random.Random().random())
        try:
            import numpy
            print("numpy", numpy.random.default_rng().random())
        except ImportError:
            pass
        print("random", random.random())
    """

    # An extension module, and whether it has OpenSSL inside, as far as anybody can see.
    MODULE = """
        #include <unistd.h>
        const char text[] = "{}";
        int forked_id(void) {{ return getpid(); }}
    """

    def test_secrets_differ_and_the_programs_own_randomness_does_not(self):
        for name, text in (("inside", "providers/implementations/rands/drbg.c"), ("others", "")):
            subprocess.run(["cc", "-shared", "-fPIC", "-o", self.directory / f"{name}.so",
                            "-xc", "-"], input=self.MODULE.format(text), text=True, check=True)
        self.assert_killed(self.run_program(self.DRAWING).returncode, signal.SIGKILL)
        copy = str(self.directory / "copy.pm")
        subprocess.run(["cp", "--sparse=always", self.pool, copy], check=True)
        first, second = self.recover(), self.recover(pool=copy)
        self.assert_ended(first)
        self.assert_ended(second)
        one, two = (dict(line.split() for line in done.stdout.splitlines())
                    for done in (first, second))
        self.assertLessEqual({"inside", "ssl", "urandom", "secrets", "uuid", "system", "getrandom",
                              "salt", "unseeded", "random"}, set(one))
        for name in one:
            compare = self.assertEqual if name == "random" else self.assertNotEqual
            compare(one[name], two[name], name)


class Clock(Case):
    """Monotonic clocks, CPU time and pending timeouts go on from the epoch, on whatever machine."""

    WAITING = """
        import ctypes, os, select, sys, threading, time, pyheap
        libc = ctypes.CDLL(None, use_errno=True)
        condition, never, lock = threading.Condition(), threading.Event(), threading.Lock()
        ended = []
        def short():
            with condition:
                ended.append(condition.wait(timeout=0.5))
        def far():
            ended.append(never.wait(timeout=500000))
        def asleep():
            time.sleep(0.7)
            ended.append("slept")
        clocks = [time.CLOCK_MONOTONIC, time.CLOCK_MONOTONIC_RAW, time.CLOCK_BOOTTIME,
                  time.CLOCK_PROCESS_CPUTIME_ID, time.CLOCK_THREAD_CPUTIME_ID, 6]
        threads = [threading.Thread(target=target, daemon=True)
                   for target in (short, far, asleep)]
        for thread in threads:
            thread.start()
        timer = libc.timerfd_create(time.CLOCK_MONOTONIC, 0)
        def arm(seconds, flags):
            whole = int(seconds)
            spec = (ctypes.c_long * 4)(0, 0, whole, int((seconds - whole) * 1e9))
            assert libc.timerfd_settime(timer, flags, spec, None) == 0
        arm(time.monotonic() + 500000, 1)
        while time.process_time() < 0.2:
            pass
        def now():
            return [time.clock_gettime(clock) for clock in clocks]
        before, wall = now(), time.time()
        for step in range(3):
            last, counter = now(), time.perf_counter()
            pyheap.epoch(wait=True)
            if pyheap.status()["recoveries"] == step:
                os.kill(os.getpid(), 9)
            assert all(a <= b < a + 500 for a, b in zip(last, now())), (last, now())
            assert 0 <= time.perf_counter() - counter < 500
        passed = time.perf_counter() - counter
        left = (ctypes.c_long * 4)()
        libc.timerfd_gettime(timer, left)
        assert 400000 < left[2] <= 500000, left[2]
        arm(time.monotonic() + 0.01, 1)
        assert select.select([timer], [], [], 60)[0], "a timer of another time"
        spec = (ctypes.c_long * 2)(int(time.monotonic()) + 1, 0)
        assert libc.syscall(230, 1, 1, spec, None) == 0   # clock_nanosleep
        assert time.monotonic() >= spec[0]
        lock.acquire()
        assert not lock.acquire(timeout=0.01)
        assert False not in ended or ended.count(False) == 1, ended
        never.set()
        for thread in threads:
            thread.join()
        assert sorted(map(str, ended)) == ["False", "True", "slept"], ended
        print("down", int(time.time() - wall - (time.monotonic() - before[0])))
    """

    def machines(self):
        """Two commands before which a machine's clocks are far ahead, and another's as they are."""
        ahead = ["unshare", "--time", "--monotonic", "1000000", "--boottime", "1000000"]
        if os.geteuid() != 0:
            ahead[1:1] = ["--user", "--map-current-user"]
        if not shutil.which("unshare") or subprocess.run([*ahead, "true"], check=False,
                                                         stderr=subprocess.DEVNULL).returncode:
            print("skipped: no time namespaces here, so no clock can be set ahead", file=sys.stderr)
            self.skipTest("no time namespaces here")
        return ahead, []

    def go_through(self, *machines, options=()):
        """Killed on each machine but the last. @return what the program says at its end."""
        for i, machine in enumerate(machines):
            argv = ([self.commands.recover, *options, self.pool] if i else self.argv(self.WAITING))
            done = self.finish([*machine, *argv])
            if i + 1 < len(machines):
                self.assert_killed(done.returncode, signal.SIGKILL)
        self.assert_ended(done)
        return int(done.stdout.split()[1])

    def test_from_a_machine_whose_clock_is_ahead(self):
        ahead, behind = self.machines()
        self.go_through(ahead, behind, ahead, behind)

    def test_to_a_machine_whose_clock_is_ahead(self):
        ahead, behind = self.machines()
        self.go_through(behind, ahead, behind, ahead)

    def test_time_between_does_not_count(self):
        wait = ["sh", "-c", 'sleep 2; exec "$@"', "sh"]
        self.assertGreaterEqual(self.go_through([], [], wait, wait), 3)

    def test_time_between_counts_if_asked_for(self):
        wait = ["sh", "-c", 'sleep 2; exec "$@"', "sh"]
        down = self.go_through([], [], wait, wait, options=["--count-downtime"])
        self.assertLessEqual(abs(down), 1)
