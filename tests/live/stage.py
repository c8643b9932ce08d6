# SPDX-License-Identifier: MIT
"""stage - run a test as another user, who may not be able to read the checkout

The built programs are copied as an installation would lay them out, the tests as the checkout
does, into a temporary directory that everybody can read; there the test is started again.
"""
import os
import pathlib
import pwd
import shutil
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SKIPPED = 77


def as_user(name, bin_directory, script, arguments):
    """Go on as the user; does not return."""
    if os.geteuid() != 0:
        print("skipped: not root, so the other live tests already run as an ordinary user")
        sys.exit(SKIPPED)
    user = pwd.getpwnam(name)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="live-user-"))
    built = pathlib.Path(bin_directory).resolve().parent
    for part in ("bin", "lib/pyheap", "libexec/pyheap"):
        if (built / part).is_dir():
            shutil.copytree(built / part, directory / part)
    for part in ("live", "storm"):
        shutil.copytree(ROOT / "tests" / part, directory / "tests" / part,
                        ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "examples", directory / "examples")
    (directory / "allocator").mkdir()
    shutil.copy(ROOT / "allocator" / "error.h", directory / "allocator")
    home = directory / "home"
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    os.chmod(directory, 0o755)

    child = os.fork()
    if child == 0:
        os.chdir(home)
        os.environ.update(HOME=str(home), TMPDIR=str(home), USER=name, LOGNAME=name,
                          PYTHONDONTWRITEBYTECODE="1")
        os.initgroups(name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        script = directory / pathlib.Path(script).resolve().relative_to(ROOT)
        os.execv("/usr/bin/python3", ["/usr/bin/python3", str(script),
                                      "--bin", str(directory / "bin"), *arguments])
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        shutil.rmtree(directory)
    sys.exit(status)
