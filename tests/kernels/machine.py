# SPDX-License-Identifier: MIT
"""machine - an emulated machine with a kernel of Debian's, which needs no rights

It sees this machine's files, read-only, below a layer in memory; temporary files go to a fresh
ext4. A command runs in it, as root; what that prints is printed here.
"""
import ctypes
import gzip
import os
import pathlib
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys

PACKAGE = "linux-image-amd64"
MODULES = ("virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "overlay", "crc32c_generic", "ext4")
MARK = "pyheap-status"
# Without no_timer_check the kernel panics where ten ticks take too long, on a busy machine.
APPEND = "console=ttyS0 quiet panic=-1 no_timer_check"
# Seconds without a line. It is there for a machine that hangs: under load the slowest of the
# tests prints one every few minutes.
SILENCE = 1800
# A processor of a name has what the emulation lacks.
UNIMPORTANT = b"TCG doesn't support requested feature"

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


def disk(work, files, command):
    """An ext4 for the temporary files, with a copy of `files` and the command in it."""
    top = work / "tmp"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir()
    (top / "command").write_text(command)
    if files:  # tar, since it keeps holes and times
        made = subprocess.Popen(["tar", "-cS", "--format=posix", "-C", files, "."],
                                stdout=subprocess.PIPE)
        subprocess.run(["tar", "-xSp", "-C", top], stdin=made.stdout, check=True)
        if made.wait() != 0:
            raise SystemExit(f"cannot copy {files}")
    image = work / "tmp.ext4"
    image.unlink(missing_ok=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", top, image, "4G"], check=True,
                   stdout=subprocess.DEVNULL,
                   env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
    shutil.rmtree(top)
    return image


def end_with_us():
    """In the child: qemu shall not stay when we are killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Machine:
    """One kernel; run() starts the machine anew each time."""

    def __init__(self, work, deb=None, package=PACKAGE, silence=SILENCE):
        for program in ("qemu-system-x86_64", "busybox", "mke2fs", "dpkg-deb"):
            if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
                skip(f"{program} is not there (scripts/test-kernels installs it)")
        self.work = work
        self.silence = silence
        work.mkdir(parents=True, exist_ok=True)
        deb = deb or package_file(package, work)
        self.tree = work / deb.stem
        if not self.tree.is_dir():
            subprocess.run(["dpkg-deb", "-x", deb, self.tree.with_suffix(".part")], check=True)
            self.tree.with_suffix(".part").rename(self.tree)
        self.initrd = work / f"{deb.stem}.initramfs"
        initramfs(self.tree, self.initrd)

    def run(self, command, directory, cpu="max", files=None, out=None):
        """Run shell text in a directory of this machine's.

        @param files  a directory whose content /var/tmp gets
        @param out    a file that the command finds as /dev/vdb, to write what we shall have
        @return its exit status; None if the machine has ended without one
        """
        image = disk(self.work, files, f"""cd {shlex.quote(str(directory))}
export PATH={shlex.quote(os.environ['PATH'])} HOME=/root LANG=C.UTF-8
export TMPDIR=/var/tmp PYTHONDONTWRITEBYTECODE=1
{command}
""")
        argv = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", cpu, "-smp", "2",
                "-m", "3072", "-display", "none", "-monitor", "none", "-serial", "stdio",
                "-no-reboot", "-nic", "none", "-kernel", next((self.tree / "boot").glob("vmlinuz*")),
                "-initrd", self.initrd, "-append", APPEND,
                "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,"
                "multidevs=remap"]
        for file in [image] + ([out] if out else []):
            argv += ["-drive", f"file={file},format=raw,if=virtio,cache=unsafe"]
        process = subprocess.Popen(list(map(str, argv)), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=end_with_us)
        status = None
        for line in lines_of(process, self.silence):
            if line.startswith(MARK):
                status = int(line.split()[1])
            elif line:
                print(line, flush=True)
        image.unlink()
        if status is None:
            print(f"the machine ended without a result (status {process.returncode})")
        return status


def lines_of(process, silence):
    """What the machine prints, line by line; one that has stopped printing is ended."""
    rest = {process.stdout: b"", process.stderr: b""}
    streams = selectors.DefaultSelector()
    for stream in rest:
        streams.register(stream, selectors.EVENT_READ)
    silent = 0  # turns of 10 s: what we are stopped for, too, counts as one
    while streams.get_map():
        ready = streams.select(10)
        silent = 0 if ready else silent + 1
        if silent > silence / 10:
            silent = 0
            print(f"the machine has printed nothing for {silence / 60:.0f} minutes: ended",
                  flush=True)
            process.kill()
        for key, _ in ready:
            stream = key.fileobj
            got = os.read(key.fd, 1 << 16)
            if not got:
                streams.unregister(stream)
            *lines, rest[stream] = (rest[stream] + got).split(b"\n")
            for line in lines:
                if UNIMPORTANT not in line:
                    yield re.sub(r"\x1b(c|\[[?\d;]*[A-Za-z])", "",
                                 line.decode(errors="replace")).rstrip()
    process.wait()
