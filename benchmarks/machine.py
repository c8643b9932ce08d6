# SPDX-License-Identifier: MIT
"""machine - what the figures were taken on"""
import datetime
import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def proc_field(path, name):
    with open(path) as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return "?"


def file_system(path):
    """Type of the file system that holds @p path."""
    best = ("", "?")
    with open("/proc/self/mounts") as file:
        for line in file:
            _, point, kind, *_ = line.split()
            if os.path.commonpath([point, path]) == point and len(point) >= len(best[0]):
                best = (point, kind)
    return best[1]


def commit():
    name = first_line("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    dirty = first_line("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return name + (" with changes" if dirty else "") if name else "unknown"


def load():
    return f"{os.getloadavg()[0]:.1f}"


def today():
    return datetime.date.today().isoformat()


def describe(directory):
    huge = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    packages = []
    for name in ("numpy", "dill", "cloudpickle", "joblib"):
        try:
            packages.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            packages.append(f"{name} missing")
    return {
        "processor": proc_field("/proc/cpuinfo", "model name") + f", {os.cpu_count()} cores",
        "memory": f"{int(proc_field('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.0f} GiB",
        "kernel": platform.release(),
        "huge pages": huge.read_text().strip() if huge.exists() else "none",
        "file system": file_system(str(directory)),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "packages": ", ".join(packages),
        "libpmemobj": first_line("pkg-config", "--modversion", "libpmemobj"),
        "compiler": first_line("cc", "--version"),
        "DMTCP": first_line("dmtcp_launch", "--version") if shutil.which("dmtcp_launch")
                 else "not on PATH",
        "CRIU": first_line("criu", "--version") if shutil.which("criu") else "not on PATH",
    }
