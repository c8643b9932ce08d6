# SPDX-License-Identifier: MIT
"""case_module - what `import pyheap` gives under pyheap-run"""
import os
import signal

from case import Case
from commands import PATIENCE

STATUS_KEYS = {"epoch", "durable", "recoveries", "pages_staged", "pages_ahead",
               "bytes_staged", "pages_written", "bytes_written", "pause", "commit"}


class Module(Case):
    """Each test is a program that asserts."""

    def check(self, text):
        self.assert_ended(self.run_program(text))

    def test_it_is_built_in_and_active(self):
        self.check("""
            import sys, pyheap
            assert pyheap.active is True
            assert "pyheap" in sys.builtin_module_names or not hasattr(pyheap, "__file__")
        """)

    def test_epochs_are_numbered(self):
        self.check("""
            import pyheap
            numbers = [pyheap.epoch() for _ in range(5)] + [pyheap.epoch("label", wait=True)]
            assert numbers == [1, 2, 3, 4, 5, 6], numbers
        """)

    def test_wait_and_sync_make_durable(self):
        self.check("""
            import pyheap
            number = pyheap.epoch(wait=True)
            assert pyheap.status()["durable"] == number
            for _ in range(3):
                number = pyheap.epoch("a label")
            assert pyheap.sync() == number
            assert pyheap.status()["durable"] == number == pyheap.status()["epoch"]
        """)

    def test_status(self):
        self.check(f"""
            import pyheap
            keys = set({sorted(STATUS_KEYS)!r})
            status = pyheap.status()
            assert keys <= status.keys(), keys - status.keys()
            assert (status["epoch"], status["durable"], status["recoveries"]) == (0, 0, 0)
            data = bytearray(1 << 20)
            pyheap.epoch(wait=True)
            first = pyheap.status()
            assert first["pages_staged"] >= first["pages_written"] > 0, first
            assert first["bytes_staged"] >= 4096 * first["pages_staged"], first
            assert first["pause"] > 0 and first["commit"] > 0, first
            data[:] = b"x" * len(data)
            pyheap.epoch(wait=True)
            second = pyheap.status()
            assert second["pages_written"] >= 256, second
            data[:] = b"x" * len(data)  # the same again: staged, but not written
            pyheap.epoch(wait=True)
            third = pyheap.status()
            assert third["pages_written"] < 256, third
        """)

    def test_exception_classes(self):
        self.check("""
            import pyheap
            assert issubclass(pyheap.Error, RuntimeError)
            for name in ("Keeper", "PoolFull", "Fork", "Thread", "Unsupported"):
                assert issubclass(getattr(pyheap, name + "Error"), pyheap.Error)
        """)

    def test_wrong_arguments(self):
        self.check("""
            import pyheap
            for wrong in (lambda: pyheap.epoch(3), lambda: pyheap.epoch(nonsense=1),
                          lambda: pyheap.epoch("a", True, 3), lambda: pyheap.on_restore(3)):
                try:
                    wrong()
                except TypeError:
                    continue
                raise SystemExit("no TypeError")
            pyheap.epoch("a label that is far too long " * 50, wait=True)
            pyheap.epoch("\\N{SNOWMAN}" * 50, wait=True)
        """)

    def test_epoch_in_another_thread(self):
        self.check("""
            import threading, pyheap
            numbers = []
            threads = [threading.Thread(target=lambda: numbers.append(pyheap.epoch(wait=True)))
                       for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            assert sorted(numbers) == [1, 2, 3, 4], numbers
        """)

    def test_a_forked_child_is_told_so(self):
        self.check("""
            import os, pyheap
            pyheap.epoch(wait=True)
            pid = os.fork()
            if pid == 0:
                for call in (pyheap.epoch, pyheap.sync):
                    try:
                        call()
                        os._exit(1)
                    except pyheap.ForkError as error:
                        if "forked" not in str(error):
                            os._exit(2)
                os._exit(5)
            assert os.waitpid(pid, 0)[1] == 5 << 8
            pyheap.epoch(wait=True)
        """)

    def test_a_child_made_without_handlers_is_told_so(self):
        """_Fork runs none, and makes the child's own id look like the program's leader's."""
        self.check("""
            import ctypes, os, pyheap
            pyheap.epoch()
            child = ctypes.PyDLL(None)._Fork()
            if child == 0:
                try:
                    pyheap.epoch()
                except pyheap.ForkError:
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0) == (child, 0)
            assert pyheap.epoch(wait=True) == 2
        """)

    def test_multiprocessing_children_are_ordinary(self):
        self.check("""
            import multiprocessing
            try:
                import pyheap
            except ImportError:  # a spawned child reads this file too, in ordinary Python
                pyheap = None

            def work(n):
                return n * n

            if __name__ == "__main__":
                assert pyheap.active
                for method in ("fork", "spawn"):
                    with multiprocessing.get_context(method).Pool(2) as pool:
                        assert pool.map(work, range(20)) == [n * n for n in range(20)]
                        pool.close()
                        pool.join()
                    pyheap.epoch(wait=True)
        """)

    def test_output_before_an_epoch_is_flushed_by_it(self):
        keeper, target = self.start(self.argv("""
            import time, pyheap
            print("printed without flush")
            pyheap.epoch(wait=True)
            time.sleep(600)
        """))
        self.wait_epoch()
        self.assertEqual(self.out.read_text(), "printed without flush\n")

    def test_development_mode_comes_back(self):
        """With its debug hooks over pyheap's allocator, faulthandler and its signal stack."""
        done = self.finish(self.argv("""
            import ctypes, faulthandler, os, signal, sys, pyheap
            api = ctypes.pythonapi
            api.PyMem_Malloc.restype, api.PyMem_Malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
            api.PyMem_Free.argtypes = [ctypes.c_void_p]
            words = {n: str(n) * 3 for n in range(20000)}
            pyheap.epoch(wait=True)
            if not pyheap.status()["recoveries"]:
                os.kill(os.getpid(), signal.SIGKILL)
            block = api.PyMem_Malloc(64)
            assert ctypes.string_at(block, 64) == b"\\xcd" * 64
            api.PyMem_Free(block)
            assert sys.flags.dev_mode and faulthandler.is_enabled() and pyheap._hook()["in_force"]
            words.clear()
            print("ok", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        """), env={**os.environ, "PYTHONDEVMODE": "1"})
        self.assert_killed(done.returncode, signal.SIGKILL)
        done = self.recover()
        self.assertEqual(done.stdout, "ok\n", done.stderr)
        self.assert_killed(done.returncode, signal.SIGSEGV)
        self.assertIn("Fatal Python error: Segmentation fault", done.stderr)

    def test_callbacks_run_in_a_recovered_program_before_epoch_returns(self):
        keeper, target = self.start(self.argv("""
            import time, pyheap
            calls = []
            pyheap.on_restore(lambda: calls.append("first"))
            @pyheap.on_restore
            def second():
                calls.append("second")
            recoveries = last = 0
            while recoveries < 2:
                number = pyheap.epoch(wait=True)
                recoveries = pyheap.status()["recoveries"]
                assert calls == ["first", "second"] * recoveries, (calls, recoveries)
                assert number == last + 1, (number, last)
                last = number
                print("recoveries", recoveries, flush=True)
                time.sleep(0.01)
        """))
        for recoveries in (0, 1):
            self.wait_printed(f"recoveries {recoveries}")
            # The next epoch knows of the recovery.
            self.wait_epoch(self.commands.newest(self.pool) + 2)
            target.signal(signal.SIGKILL)
            keeper.wait(PATIENCE)
            keeper, target = self.start([self.commands.recover, self.pool])
        self.assertEqual(keeper.wait(PATIENCE), 0, self.err.read_text())
        self.assertTrue(self.out.read_text().endswith("recoveries 1\nrecoveries 2\n"))


# A thread that waits for its child to execute a program takes no signal; the child waits for
# somebody to open a pipe, who does that during the second epoch.
LATE = """
    import ctypes, os, signal, subprocess, threading
    import pyheap
    libc = ctypes.CDLL(None)
    os.mkfifo("pipe")
    opener = "while [ ! -e second ]; do sleep 0.1; done; sleep 1; : > pipe"
    subprocess.Popen(["sh", "-c", opener], stdout=subprocess.DEVNULL)
    actions = ctypes.create_string_buffer(256)
    libc.posix_spawn_file_actions_init(actions)
    libc.posix_spawn_file_actions_addopen(actions, 9, b"pipe", os.O_RDONLY, 0)
    begins = threading.Event()
    def spawn():
        child, arguments = ctypes.c_int(), (ctypes.c_char_p * 2)(b"true", None)
        begins.set()
        libc.posix_spawn(ctypes.byref(child), b"/bin/true", actions, None, arguments, None)
        os.waitpid(child.value, 0)
    thread = threading.Thread(target=spawn)
    thread.start()
    begins.wait()
    while True:  # until the thread is in that call
        try:
            pyheap.epoch()
        except pyheap.Error as error:
            print(error)
            break
    open("second", "w").close()
    pyheap.epoch()
    thread.join()
    for step in range(20):
        pyheap.epoch(wait=True)
        if step == 9 and not pyheap.status()["recoveries"]:
            os.kill(os.getpid(), signal.SIGKILL)
    print("done", len(os.listdir("/proc/self/task")))
"""


class Late(Case):
    def test_a_signal_that_comes_after_its_epoch_has_failed_does_no_harm(self):
        first = self.run_program(LATE)
        self.assert_killed(first.returncode, signal.SIGKILL)
        self.assertIn("does not react to signals", first.stdout)
        done = self.recover()
        self.assert_ended(done)
        self.assertIn("done 1", done.stdout)
