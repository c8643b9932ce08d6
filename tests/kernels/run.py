#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""run.py - the tests on another kernel: in a virtual machine, emulated, which needs no rights

    tests/kernels/run.py [--deb FILE | --package NAME] [--bin DIR] [--work DIR] [--minutes M]
                         [-- COMMAND...]

The machine starts a kernel of Debian's and sees this machine's files, read-only, below a layer
in memory; temporary files go to a fresh ext4. In it TESTS run, or COMMAND, in the build
directory, as root. What they print is printed here, and their exit status is ours.

Exit status 77, with the reason, where no such machine can be started.
"""
import argparse
import gzip
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGE = "linux-image-amd64"
MODULES = ("virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "overlay", "crc32c_generic", "ext4")
# What tells the changed pages differs most between kernels.
TESTS = """set -e
ctest --output-on-failure -R unit.test_track
bin/pyheap-run --pool $TMPDIR/tracker.pm --python /usr/bin/python3 -c \\
    'import pyheap; pyheap.epoch(); print("changed pages are found by", pyheap.status()["tracker"])'
/usr/bin/python3 {root}/tests/live/run.py --bin "$PWD/bin" --python /usr/bin/python3 \\
    --kills 3 --seconds 2 \\
    --only heat --only churn --only growth --only threads --only suspended --only sparse_maps \\
    --only private_mmap --only clocks --only timers --only states
/usr/bin/python3 {root}/tests/kernels/overcommit.py "$PWD/bin"
/usr/bin/python3 {root}/tests/kernels/memory.py "$PWD/bin"
"""
MARK = "pyheap-status"

INIT = r"""#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev /host /layer /root
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for m in $($b cat /modules/order); do $b insmod /modules/$m.ko; done
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=1048576 host /host &&
$b mount -t tmpfs layer /layer &&
$b mkdir /layer/up /layer/work &&
$b mount -t overlay -o lowerdir=/host,upperdir=/layer/up,workdir=/layer/work root /root &&
for d in proc sys dev; do $b mount --move /$d /root/$d; done &&
$b mkdir -p /root/dev/pts /root/dev/shm &&
$b mount -t devpts pts /root/dev/pts &&
$b mount -t tmpfs shm /root/dev/shm &&
$b mount -t tmpfs run /root/run &&
$b mount -t cgroup2 groups /root/sys/fs/cgroup &&
$b mount -t ext4 /root/dev/vda /root/var/tmp && $b chmod 1777 /root/var/tmp &&
$b ip link set lo up
$b echo 1 4 1 7 >/root/proc/sys/kernel/printk
$b chroot /root /bin/sh /var/tmp/command 2>&1
$b echo "@MARK@ $?"
$b poweroff -f
""".replace("@MARK@", MARK)


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def package_file(package, work):
    """The newest package file of a kernel; a package such as linux-image-amd64 only names it."""
    out = subprocess.run(["apt-cache", "depends", "--no-recommends", "--no-suggests", package],
                         capture_output=True, text=True)
    named = re.search(r"Depends: (linux-image-\d\S+)", out.stdout)
    package = named[1] if named else package
    have = sorted(work.glob(f"{package}_*.deb"))
    if not have:
        done = subprocess.run(["apt-get", "download", package], cwd=work, capture_output=True,
                              text=True)
        have = sorted(work.glob(f"{package}_*.deb"))
        if not have:
            skip(f"apt-get download {package}: {done.stderr.strip().splitlines()[-1:]}")
    return have[-1]


def depends(module):
    found = re.search(rb"\0depends=([^\0]*)\0", module.read_bytes())
    return [name for name in found[1].decode().split(",") if name] if found else []


def modules(tree):
    """Files of MODULES and what they need, in the order in which they must be loaded."""
    known = {path.stem.replace("-", "_"): path for path in tree.rglob("*.ko")}
    order = []

    def add(name):
        path = known.get(name.replace("-", "_"))
        if path is None or path in order: # built in, or there already
            return
        for other in depends(path):
            add(other)
        order.append(path)
    for name in MODULES:
        add(name)
    return order


def cpio(entries):
    """An archive in the format of the kernel's initramfs, from (name, mode, content)."""
    out = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % field for field in fields)
        out += name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + content
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def initramfs(tree, to):
    order = modules(tree)
    busybox = pathlib.Path(shutil.which("busybox"))
    entries = [(name, 0o40755, b"") for name in ("bin", "modules")]
    entries += [("bin/busybox", 0o100755, busybox.read_bytes()), ("init", 0o100755, INIT.encode()),
                ("modules/order", 0o100644, "\n".join(path.stem for path in order).encode())]
    entries += [(f"modules/{path.name}", 0o100644, path.read_bytes()) for path in order]
    to.write_bytes(gzip.compress(cpio(entries), 1))


def disk(work, command):
    """An ext4 for the temporary files, with the command in it."""
    files = work / "tmp"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir()
    (files / "command").write_text(command)
    image = work / "tmp.ext4"
    image.unlink(missing_ok=True)
    subprocess.run(["mke2fs", "-q", "-q", "-t", "ext4", "-d", files, image, "4G"], check=True,
                   env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
    return image


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", default=PACKAGE)
    parser.add_argument("--deb", type=pathlib.Path)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "build" / "bin")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build" / "kernels")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("command", nargs="*")
    args = parser.parse_args()
    for program in ("qemu-system-x86_64", "busybox", "mke2fs", "dpkg-deb"):
        if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            skip(f"{program} is not there (scripts/test-kernels installs it)")
    args.work.mkdir(parents=True, exist_ok=True)
    deb = args.deb or package_file(args.package, args.work)
    tree = args.work / deb.stem
    if not tree.is_dir():
        subprocess.run(["dpkg-deb", "-x", deb, tree.with_suffix(".part")], check=True)
        tree.with_suffix(".part").rename(tree)
    initrd = args.work / f"{deb.stem}.initramfs"
    initramfs(tree, initrd)
    command = shlex.join(args.command) or TESTS.format(root=shlex.quote(str(ROOT)))
    image = disk(args.work, f"""cd {shlex.quote(str(args.bin.resolve().parent))}
export PATH={shlex.quote(os.environ['PATH'])} HOME=/root LANG=C.UTF-8
export TMPDIR=/var/tmp PYTHONDONTWRITEBYTECODE=1
uname -sr
{command}
""")
    kernel = next((tree / "boot").glob("vmlinuz*"))
    machine = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
               "-m", "3072", "-nographic", "-no-reboot", "-nic", "none", "-kernel", kernel,
               "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1",
               "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,"
               "multidevs=remap", "-drive", f"file={image},format=raw,if=virtio,cache=unsafe"]
    status = None
    process = subprocess.Popen(["timeout", "-k", "5", str(args.minutes * 60), *map(str, machine)],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                               errors="replace")
    for line in process.stdout:
        line = re.sub(r"\x1b(c|\[[?\d;]*[A-Za-z])", "", line).rstrip()
        if line.startswith(MARK):
            status = int(line.split()[1])
        else:
            print(line, flush=True)
    process.wait()
    image.unlink()
    if status is None:
        print(f"the machine ended without a result (status {process.returncode})")
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
