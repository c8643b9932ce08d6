# SPDX-License-Identifier: MIT
"""Files as names: archives, logs that rotate, trees that are copied and moved, FIFOs, shared memory."""
import _ctypes
import ctypes
import dbm.dumb
import fileinput
import importlib.util
import inspect
import io
import logging
import logging.handlers
import mailbox
import multiprocessing.shared_memory
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
import zipimport

from .base import piece, remove_tree


@piece
def archives(me):
    """Zip and tar archives that are opened for each member, which overwrites their ends."""
    for r in me.rounds:
        mode = "a" if r % 50 else "w"
        data = me.rng.randbytes(me.rng.randint(0, 3000))
        with zipfile.ZipFile(f"{me.name}.zip", mode) as archive:
            archive.writestr(zipfile.ZipInfo(f"{r}"), data)
            if me.rng.random() < 0.3:
                yield
        about = tarfile.TarInfo(f"{r}")
        about.size = len(data)
        with tarfile.open(f"{me.name}.tar", mode) as archive:
            archive.addfile(about, io.BytesIO(data))
        yield
        with zipfile.ZipFile(f"{me.name}.zip") as archive, \
                tarfile.open(f"{me.name}.tar") as other:
            assert archive.namelist() == other.getnames()
            assert archive.read(f"{r}") == data == other.extractfile(f"{r}").read()
            me.say(r, len(data), len(archive.namelist()))


@piece
def rotated(me):
    """A log of logging's that rotates, one that is replaced behind an open descriptor."""
    log = logging.Logger(me.name)
    handler = logging.handlers.RotatingFileHandler(f"{me.name}.log", maxBytes=900, backupCount=3)
    log.addHandler(handler)
    for r in me.rounds:
        log.warning("%d %s", r, "x" * me.rng.randrange(200))
        yield
        with open(f"{me.name}.log") as file:
            lines = file.read().splitlines()
        me.say(r, len(lines), [os.path.exists(f"{me.name}.log.{n}") for n in range(1, 5)])
    log.removeHandler(handler)
    handler.close()


@piece
def dumb_table(me):
    """A table of dbm.dumb: an index that is rewritten, blocks that are overwritten in place."""
    kept = {}
    for r in me.rounds:
        with dbm.dumb.open(f"{me.name}.db", "c" if r else "n") as table:
            for _ in range(3):
                key = b"%d" % me.rng.randrange(30)
                table[key] = kept[key] = me.rng.randbytes(me.rng.randint(0, 900))
            if me.rng.random() < 0.3 and len(kept) > 5:
                key = me.rng.choice(sorted(kept))
                del table[key], kept[key]
            yield
        with dbm.dumb.open(f"{me.name}.db", "r") as table:
            assert {key: table[key] for key in table.keys()} == kept
        me.say(r, len(kept))


@piece
def trees(me):
    """Directories that are filled, linked, copied, moved and removed, by calls at a directory. None
    that goes is held open, as shutil does: such a one cannot come back."""
    root = f"{me.name}.root"
    os.mkdir(root)
    at = os.open(root, os.O_RDONLY)
    for r in me.rounds:
        os.mkdir("a", dir_fd=at)
        for n in range(3):
            file = os.open(f"a/{n}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 + n, dir_fd=at)
            os.write(file, b"%d\n" % r * n)
            os.close(file)
        yield
        os.link("a/1", "a/hard", src_dir_fd=at, dst_dir_fd=at)
        os.truncate(f"{root}/a/hard", 1)
        os.mkdir(f"{root}/b")
        for n in range(3):
            shutil.copyfile(f"{root}/a/{n}", f"{root}/b/{n}")
        yield
        os.rename("a/2", "b/moved", src_dir_fd=at, dst_dir_fd=at)
        os.rename(f"{root}/b", f"{root}/c")
        yield
        names = ("a/0", "a/1", "a/hard", "c/0", "c/1", "c/2", "c/moved")
        me.say(r, [os.stat(name, dir_fd=at).st_size for name in names],
               os.stat("a/hard", dir_fd=at).st_nlink)
        for name in names:
            os.unlink(name, dir_fd=at)
        yield
        os.rmdir("a", dir_fd=at)
        os.rmdir(f"{root}/c")
        assert os.listdir(at) == []
    os.close(at)


@piece
def temporary_directories(me):
    """With files in them, held over some rounds."""
    held = []
    for r in me.rounds:
        directory = tempfile.TemporaryDirectory()
        file = open(f"{directory.name}/open", "w+")
        with open(f"{directory.name}/closed", "w") as closed:
            closed.write(f"{r}")
        held.append((r, directory, file))
        yield
        for n, directory, file in held:
            file.write(f"{n} {r}\n")
            file.flush()
            with open(f"{directory.name}/closed") as closed:
                assert closed.read() == f"{n}"
            assert sorted(os.listdir(directory.name)) == ["closed", "open"]
        if len(held) > 3:
            n, directory, file = held.pop(me.rng.randrange(3))
            file.seek(0)
            me.say(r, n, len(file.readlines()))
            file.close()
            remove_tree(directory.name, lambda _: directory.cleanup())
    for _, directory, file in held:
        file.close()
        remove_tree(directory.name, lambda _: directory.cleanup())


@piece
def fifos(me):
    """A FIFO with both ends here and bytes in it, under names that change."""
    name = f"{me.name}.fifo"
    os.mkfifo(name)
    read = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    write = os.open(name, os.O_WRONLY)
    for r in me.rounds:
        data = me.rng.randbytes(me.rng.randint(1, 3000))
        os.write(write, data)
        yield
        if r % 7 == 3:
            os.rename(name, f"{me.name}.fifo{r}")
            name = f"{me.name}.fifo{r}"
        assert os.read(read, 9999) == data
        me.say(r, len(data))
    os.close(read)
    os.close(write)
    os.unlink(name)


@piece
def shared_memory(me):
    """Segments under names, made, held, opened once more by name, and removed."""
    unknown = {"track": False} if sys.version_info >= (3, 13) else {}
    held = []
    for r in me.rounds:
        if r % 5 == 0:
            size = me.rng.randint(1, 50000)
            make = multiprocessing.shared_memory.SharedMemory
            try:
                segment = make(create=True, size=size)
            except BrokenPipeError:  # its tracker is a child, and was alive a moment ago
                segment = make(create=True, size=size)
            held.append((segment, size))
        for segment, size in held:
            segment.buf[size - 1] = r % 256
        yield
        for segment, size in held:
            assert segment.buf[size - 1] == r % 256
        if unknown:
            again = multiprocessing.shared_memory.SharedMemory(held[0][0].name, **unknown)
            assert again.buf[held[0][1] - 1] == r % 256
            again.close()
        if len(held) > 3:
            segment, size = held.pop(me.rng.randrange(3))
            segment.close()
            segment.unlink()
            me.say(r, size)
    for segment, _ in held:
        segment.close()
        segment.unlink()


@piece
def put_in_place(me):
    """What installers and editors do: links that are turned, files rewritten in place, locks by
    links."""
    page, current = f"{me.name}.page", f"{me.name}.current"
    with open(page, "w") as file:
        file.writelines(f"line {n}\n" for n in range(20))
    for r in me.rounds:
        os.mkdir(f"{me.name}.v{r}")
        with open(f"{me.name}.v{r}/number", "w") as file:
            file.write(f"{r}")
        yield
        os.symlink(f"{me.name}.v{r}", f"{current}.new")
        os.replace(f"{current}.new", current)
        if r > 1:
            remove_tree(f"{me.name}.v{r - 2}")
        yield
        with open(f"{current}/number") as file:
            assert file.read() == f"{r}"
        with fileinput.FileInput(page, inplace=True) as lines:
            for line in lines:
                lines._output.write(line if "9" in line else f"{line.rstrip()}.{r % 10}\n"[-40:])
        yield
        fd, name = tempfile.mkstemp(dir=".")
        os.write(fd, b"locked")
        os.fsync(fd)
        os.link(name, f"{me.name}.lock")
        os.close(fd)
        try:
            os.open(f"{me.name}.lock", os.O_CREAT | os.O_EXCL)
            raise AssertionError("it is not locked")
        except FileExistsError:
            yield
        os.unlink(name)
        with open(f"{me.name}.given", "x") as file:
            file.write(f"{r}")
        os.replace(f"{me.name}.given", f"{me.name}.lock")
        yield
        with open(page) as file, open(f"{me.name}.lock") as lock:
            me.say(r, file.read().count("\n"), lock.read())
        os.unlink(f"{me.name}.lock")


@piece
def own_modules(me):
    """Modules that the program writes itself and imports, from a directory and from an archive."""
    root = f"{me.name}.modules"
    os.mkdir(root)
    keep = sys.dont_write_bytecode
    for r in me.rounds:
        name = f"{me.name[3:]}_{me.name[:2]}_{r}"
        with open(f"{root}/{name}.py", "w") as file:
            file.write(f"import json\nvalue = {r}\ndef f(n):\n    yield from range(n + value)\n")
        with zipfile.ZipFile(f"{root}/{name}.zip", "w") as archive:
            archive.write(f"{root}/{name}.py", "inner.py")
        yield
        spec = importlib.util.spec_from_file_location(name, f"{root}/{name}.py")
        module = importlib.util.module_from_spec(spec)
        code = spec.loader.source_to_code(spec.loader.get_data(spec.origin), spec.origin)
        exec(code, module.__dict__)
        inner = zipimport.zipimporter(f"{root}/{name}.zip").get_code("inner")
        values = {}
        exec(inner, values)
        going = module.f(3)
        first = next(going)
        os.remove(f"{root}/{name}.py")
        yield
        me.say(r, first, sum(going), sum(values["f"](2)), len(inspect.signature(module.f).parameters))
        os.remove(f"{root}/{name}.zip")
    os.rmdir(root)
    assert sys.dont_write_bytecode == keep


@piece
def mails(me):
    """A mailbox, locked by a link, which is rewritten as a whole."""
    box = mailbox.mbox(f"{me.name}.mbox")
    for r in me.rounds:
        box.lock()
        mail = mailbox.mboxMessage(f"Subject: {r}\n\n" + "text\n" * me.rng.randrange(100))
        mail.set_from("me", (2026, 1, 1, 0, 0, 0, 0, 0, 0))
        box.add(mail)
        yield
        if len(box) > 5:
            box.remove(min(box.keys()))
        box.flush()
        box.unlock()
        yield
        me.say(r, len(box), [one["subject"] for one in box])
    box.close()


@piece
def libraries(me):
    """Copies of a library that are loaded, used, closed, and whose file goes meanwhile."""
    library = "/lib/x86_64-linux-gnu/libm.so.6"
    for r in me.rounds:
        yield
        if r % 4 or not os.path.exists(library):
            continue
        shutil.copyfile(library, f"{me.name}.so")
        loaded = ctypes.CDLL(f"./{me.name}.so")
        if r % 8:
            os.remove(f"{me.name}.so")
        yield
        loaded.floor.restype = ctypes.c_double
        assert loaded.floor(ctypes.c_double(2.5)) == 2
        _ctypes.dlclose(loaded._handle)
        yield
        if not r % 8:
            os.remove(f"{me.name}.so")
        me.say(r)
