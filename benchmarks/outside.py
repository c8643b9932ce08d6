# SPDX-License-Identifier: MIT
"""outside - whole-process checkpointers: DMTCP and CRIU, beside heat_peers.py --how outside"""
import os
import pathlib
import shutil
import signal
import subprocess
import time

import harness


def sync_files(directory):
    """What pyheap's epochs and the saved files are, the images shall be too: durable."""
    for path in [*pathlib.Path(directory).rglob("*"), pathlib.Path(directory)]:
        if path.is_file() or path.is_dir():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)


def call(command, cwd):
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, timeout=harness.PATIENCE)
    if done.returncode != 0:
        raise harness.Failed(f"{command[0]}: {done.stderr.strip()[-300:]}")


class Dmtcp:
    name = "DMTCP"

    def __init__(self):
        self.port = str(20000 + os.getpid() % 20000)

    @staticmethod
    def why_not():
        return None if shutil.which("dmtcp_launch") else "not on PATH"

    def command(self, place):
        images = place / "images"
        images.mkdir()
        return ["dmtcp_launch", "-q", "--new-coordinator", "--coord-port", self.port,
                "--no-gzip", "--ckptdir", str(images)]

    def save(self, pid, place):
        call(["dmtcp_command", "--coord-port", self.port, "--bcheckpoint"], place)
        sync_files(place / "images")

    def images(self, place):
        return sum(p.stat().st_size for p in (place / "images").glob("*.dmtcp"))


class Criu:
    name = "CRIU"

    @staticmethod
    def why_not():
        if not shutil.which("criu"):
            return "not on PATH"
        done = subprocess.run(["criu", "check"], capture_output=True, text=True)
        if done.returncode == 0:
            return None
        lines = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        lines = [line for line in lines if "exited" not in line] or [f"status {done.returncode}"]
        return f"`criu check` fails on this kernel: {lines[0]}"

    def command(self, place):
        self.saves = 0
        # Increments need the kernel's soft-dirty bits; without them every dump is whole.
        self.increments = subprocess.run(["criu", "check", "--feature", "mem_dirty_track"],
                                         capture_output=True).returncode == 0
        return []

    def save(self, pid, place):
        images, last = (place / f"images{n}" for n in (self.saves, self.saves - 1))
        images.mkdir()
        command = ["criu", "dump", "-t", str(pid), "-D", str(images), "--leave-running",
                   "--shell-job"]
        if self.increments:
            command += ["--track-mem"]
            if self.saves:
                command += ["--prev-images-dir", f"../{last.name}"]
        call(command, place)
        sync_files(images)
        if self.saves and not self.increments:
            shutil.rmtree(last)
        self.saves += 1

    def images(self, place):
        return sum(p.stat().st_size for p in (place / f"images{self.saves - 1}").glob("*"))


def run(peer, bench, place, arguments):
    """Run the program to its end, saving it when it asks. @return (output, seconds)."""
    command = peer.command(place) + [bench.python, str(harness.PROGRAMS / "heat_peers.py"),
                                     *arguments, "--how", "outside"]
    request, output = place / "request", place / "output"
    started = time.perf_counter()
    with open(output, "w") as out:
        program = subprocess.Popen(command, cwd=place, stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=out, start_new_session=True)
        try:
            while program.poll() is None:
                if request.exists():
                    peer.save(int(request.read_text()), place)
                    request.unlink()
                time.sleep(0.001)
        except harness.Failed:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()
            raise
    seconds = time.perf_counter() - started
    if program.returncode != 0:
        raise harness.Failed(f"{peer.name}: {output.read_text()[-300:]}")
    return output.read_text(), seconds
