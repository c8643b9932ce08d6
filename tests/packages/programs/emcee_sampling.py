# SPDX-License-Identifier: MIT
"""emcee: an ensemble of walkers, sampled step by step by a generator; its log in the memory.

live: rounds=40 needs=emcee
"""
import sys

import emcee
import numpy as np
import pyheap


def log_probability(theta, x, y):
    slope, intercept = theta
    return -0.5 * np.sum((y - slope * x - intercept) ** 2)


def main():
    rounds = int(sys.argv[1])
    random = np.random.RandomState(7)
    x = np.linspace(0, 10, 50)
    y = 2 * x + 1 + random.normal(size=50)
    np.random.seed(5)  # where the sampler takes its state from
    sampler = emcee.EnsembleSampler(16, 2, log_probability, args=(x, y))
    start = random.normal(size=(16, 2))
    steps = sampler.sample(start, iterations=rounds, progress=False)
    for r, state in enumerate(steps):
        pyheap.epoch()  # the sampler is suspended in its generator
        assert state.coords.shape == (16, 2)
        assert sampler.iteration == r + 1
        if r % 10 == 0:
            print(r, f"{state.log_prob.max():.6f} {sampler.get_chain().sum():.6f}")
    print(f"{sampler.acceptance_fraction.mean():.4f}")


main()
