# SPDX-License-Identifier: MIT
"""gymnasium: episodes of an environment with wrappers, several at once, an agent that learns from
a table; random numbers of the environment and of its spaces.

live: rounds=40 needs=gymnasium
"""
import sys

import gymnasium
import numpy as np
import pyheap
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(2)
    env = RecordEpisodeStatistics(TimeLimit(gymnasium.make("CartPole-v1").unwrapped, 100))
    several = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("MountainCar-v0")] * 3)
    several.action_space.seed(3)
    several.reset(seed=4)
    table = np.zeros((2 ** 4, 2))
    observation, _ = env.reset(seed=1)
    episodes = 0
    for r in range(rounds):
        for step in range(50):
            state = int(np.dot(observation > 0, [1, 2, 4, 8]))
            action = int(np.argmax(table[state] + random.normal(size=2)))
            observation, reward, ended, cut, info = env.step(action)
            table[state, action] += 0.1 * (-1 if ended else reward * 0.1)
            if step == 25:
                pyheap.epoch()  # in the middle of an episode
            if ended or cut:
                assert info["episode"]["l"] > 0
                episodes += 1
                observation, _ = env.reset()
        others, *_ = several.step(several.action_space.sample())
        assert others.shape == (3, 2)
        if r % 10 == 0:
            print(r, episodes, f"{table.sum():.5f} {others.sum():.5f}")
    several.close()
    env.close()


main()
