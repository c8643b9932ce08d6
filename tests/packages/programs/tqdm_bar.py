# SPDX-License-Identifier: MIT
"""tqdm: a bar on standard output with its monitor thread, and one nested in it, over the recoveries.

live: rounds=40 needs=tqdm
"""
import sys

import pyheap
from tqdm import tqdm


def main():
    rounds = int(sys.argv[1])
    bar = tqdm(range(rounds), file=sys.stdout, ascii=True, mininterval=0, ncols=60,
               bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}")
    inner = tqdm(total=5 * rounds, file=sys.stdout, ascii=True, mininterval=0, position=1,
                 bar_format="{n_fmt}/{total_fmt}")
    for r in bar:
        pyheap.epoch()
        inner.update(5)
        if r % 10 == 0:
            bar.set_postfix(r=r)
    inner.close()
    assert bar.n == rounds and inner.n == 5 * rounds


main()
