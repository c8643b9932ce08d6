# SPDX-License-Identifier: MIT
"""tokenizers: a tokenizer that is trained on Rust's pool of threads from a Python generator, in
which the epoch is taken; it encodes in batches.

live: rounds=12 needs=tokenizers environment=TOKENIZERS_PARALLELISM=true
"""
import sys

import pyheap
from tokenizers import Tokenizer, models, pre_tokenizers, trainers


def lines(r):
    for n in range(400):
        yield f"line {n} of round {r % 7}: the heap, the pool and the epoch " * 2
        if n == 200:
            pyheap.epoch()  # Rust waits for the generator's next line


def main():
    rounds = int(sys.argv[1])
    for r in range(rounds):
        tokenizer = Tokenizer(models.BPE(unk_token="[?]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["[?]"], show_progress=False)
        tokenizer.train_from_iterator(lines(r), trainer, length=400)
        encoded = tokenizer.encode_batch([f"the epoch {n}" for n in range(300)])
        assert len(encoded) == 300 and encoded[5].tokens[0] == "the"
        if r % 10 == 0:
            print(r, tokenizer.get_vocab_size(), sum(len(e.ids) for e in encoded))


main()
