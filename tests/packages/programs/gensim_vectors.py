# SPDX-License-Identifier: MIT
"""gensim: vectors of words, learnt in Cython on several threads that are fed from a queue.

live: rounds=12 needs=gensim
"""
import sys

import pyheap
from gensim.models import Word2Vec


def sentences(r, epochs):
    for n in range(300):
        yield [f"word{(n * k + r) % 40}" for k in range(1, 12)]
        if n == 150 and epochs:
            pyheap.epoch()  # the workers wait for the next sentences


class Corpus:
    """Goes on from the round's number; only the last pass through it takes the epoch."""

    def __init__(self, r, last=False):
        self.r, self.last = r, last

    def __iter__(self):
        return sentences(self.r, self.last)


def main():
    rounds = int(sys.argv[1])
    model = Word2Vec(vector_size=20, min_count=1, workers=2, seed=1)
    model.build_vocab(Corpus(0))
    for r in range(rounds):
        model.train(Corpus(r, True), total_examples=300, epochs=1)
        assert len(model.wv) == 40 and len(model.wv.most_similar("word3", topn=5)) == 5
        if r % 10 == 0:
            print(r, model.train_count, model.wv.vectors.shape)


main()
