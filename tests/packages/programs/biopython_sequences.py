# SPDX-License-Identifier: MIT
"""Biopython: records read one by one, alignments that a generator makes, an index of a file, a
motif that is counted in C.

live: rounds=40 epochs=2 needs=Bio
"""
import random
import sys

import pyheap
from Bio import Align, SeqIO, motifs
from Bio.Seq import MutableSeq, Seq
from Bio.SeqRecord import SeqRecord


def main():
    rounds = int(sys.argv[1])
    random.seed(8)
    SeqIO.write((SeqRecord(Seq("".join(random.choices("ACGT", k=120))), f"r{n}", description="")
                 for n in range(rounds)), "in.fasta", "fasta")
    index = SeqIO.index("in.fasta", "fasta")
    aligner = Align.PairwiseAligner(mode="global", match_score=2, mismatch_score=-1,
                                    open_gap_score=-2, extend_gap_score=-0.5)
    changing = MutableSeq("ACGT" * 30)
    score = 0
    with open("out.fasta", "w") as out:
        for r, record in enumerate(SeqIO.parse("in.fasta", "fasta")):
            alignments = iter(aligner.align(record.seq[:30], str(changing[:30])))
            first = next(alignments)
            pyheap.epoch("between alignments")
            second = next(alignments, first)
            assert second.score == first.score
            assert index[f"r{r // 2}"].id == f"r{r // 2}"
            motif = motifs.create([record.seq[i:i + 8] for i in range(0, 80, 8)])
            found = motif.counts.normalize(0.5).log_odds().calculate(record.seq)
            changing[r % 120] = record.seq[r % 120]
            SeqIO.write(record.reverse_complement(id=record.id, description=""), out, "fasta")
            pyheap.epoch("a record written")
            score += first.score
            if r % 10 == 0:
                print(r, score, f"{found.max():.4f}", record.seq.translate()[:10])
    index.close()
    print(sum(len(record) for record in SeqIO.parse("out.fasta", "fasta")))


main()
