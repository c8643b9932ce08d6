# SPDX-License-Identifier: MIT
"""mesa: a model of agents, its random numbers, a collector of data.

live: rounds=40 needs=mesa
"""
import sys

import mesa
import pyheap


class Trader(mesa.Agent):
    """Has money, and gives some of it to somebody."""

    def __init__(self, model):
        super().__init__(model)
        self.wealth = 5

    def step(self):
        if self.wealth:
            other = self.random.choice(list(self.model.agents))
            other.wealth += 1
            self.wealth -= 1
        if self.model.steps % 2 and self is self.model.watched:
            pyheap.epoch()  # in the middle of a step of all agents


class Market(mesa.Model):
    def __init__(self, n):
        super().__init__()
        self.random.seed(5)
        for _ in range(n):
            Trader(self)
        self.watched = list(self.agents)[n // 2]
        self.collector = mesa.DataCollector(
            model_reporters={"richest": lambda m: max(a.wealth for a in m.agents)})

    def step(self):
        self.agents.shuffle_do("step")
        self.collector.collect(self)


def main():
    rounds = int(sys.argv[1])
    market = Market(60)
    for r in range(rounds):
        market.step()
        market.step()
        assert sum(a.wealth for a in market.agents) == 300
        if r % 10 == 0:
            print(r, market.collector.model_vars["richest"][-1])


main()
