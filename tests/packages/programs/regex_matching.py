# SPDX-License-Identifier: MIT
"""regex: scanners half-way, fuzzy and partial matches, named lists, a pattern's cache.

live: rounds=40 needs=regex
"""
import itertools
import sys

import pyheap
import regex

TEXT = "the quick brown fox jumps over the lazy dog and runs away from 1234 cats " * 50


def main():
    rounds = int(sys.argv[1])
    fuzzy = regex.compile(r"(?:quikc){e<=2}")
    nested = regex.compile(r"\((?:[^()]|(?R))*\)")
    named = regex.compile(r"\b\L<words>\b", words=["fox", "dog", "cats"])
    words = (match for _ in itertools.repeat(0) for match in
             regex.finditer(r"(?<word>\w+)\s", TEXT))
    found = 0
    for r in range(rounds):
        match = next(words)
        scanner = named.finditer(TEXT)
        first = next(scanner)
        pyheap.epoch()
        rest = sum(1 for _ in scanner)
        assert match["word"] in TEXT and first[0] == "fox" and rest == 149
        assert fuzzy.search(TEXT)[0].strip().startswith("qui")
        assert nested.match("(" * (r % 20 + 1) + ")" * (r % 20 + 1))
        assert regex.compile(f"a{{{r % 300}}}b?").fullmatch("a" * (r % 300), partial=True)
        found += match.start()
        if r % 10 == 0:
            print(r, match["word"], found)


main()
