# SPDX-License-Identifier: MIT
"""jobs - several tests at a time: they mostly wait, for disks and for one another's processes"""
import os


def run(count, tasks, work):
    """
    Do all tasks in `count` processes, each of which calls work(iterator of its own tasks), that
    is of those that it was the one to take from a pipe. @return whether work always was true.
    """
    if count <= 1:
        return work(iter(tasks))
    read, write = os.pipe()
    children = []
    for _ in range(count):
        children.append(os.fork())
        if children[-1] == 0:
            os.close(write)
            good = False
            try:
                good = work(taken(read, tasks))
            finally:
                os._exit(not good)
    os.close(read)
    with open(write, "wb") as file:
        for number in range(len(tasks)):
            file.write(number.to_bytes(2, "little"))
    return not any([os.waitpid(child, 0)[1] for child in children])


def taken(pipe, tasks):
    while number := os.read(pipe, 2):
        yield tasks[int.from_bytes(number, "little")]
