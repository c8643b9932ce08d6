# SPDX-License-Identifier: MIT
"""Stable-Baselines3: an agent that learns with PyTorch, a callback that takes epochs in the middle of
what it collects and between the steps of its gradients.

live: rounds=12 epochs=2 needs=torch,gymnasium,stable_baselines3
"""
import sys

import gymnasium
import numpy as np
import pyheap
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

torch.set_num_threads(2)


class Watch(BaseCallback):
    """Every tenth step is an epoch."""

    def _on_step(self):
        if self.num_timesteps % 20 == 10:
            pyheap.epoch("while it collects")
        return True


def main():
    rounds = int(sys.argv[1])
    several = DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * 2)
    policy = PPO("MlpPolicy", several, n_steps=10, batch_size=10, n_epochs=2, seed=1, device="cpu")
    values = DQN("MlpPolicy", gymnasium.make("CartPole-v1"), learning_starts=20, buffer_size=500,
                 batch_size=16, train_freq=4, seed=2, device="cpu")
    for model in (policy, values):
        model.learn(10, callback=Watch())
    for r in range(rounds):
        policy.learn(20, callback=Watch(), reset_num_timesteps=False)
        values.learn(20, callback=Watch(), reset_num_timesteps=False)
        action, _ = policy.predict(np.zeros((2, 4), dtype="f4"), deterministic=True)
        assert action.shape == (2,) and values.replay_buffer.size() <= 500
        if r % 5 == 0:
            weight = sum(p.double().sum().item() for p in policy.policy.parameters())
            print(r, policy.num_timesteps, values.num_timesteps, f"{weight:.4f}")


main()
