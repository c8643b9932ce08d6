# SPDX-License-Identifier: MIT
"""jax on the CPU: functions compiled by XLA before and after the recovery, its pools of threads,
results that are still being computed at the epoch, keys of random numbers.

live: rounds=20 needs=jax
"""
import sys

import jax
import jax.numpy as jnp
import pyheap


@jax.jit
def step(state, key):
    return jnp.tanh(state @ state.T / 50 + jax.random.normal(key, state.shape))


def loss(weights, x, y):
    return jnp.mean((x @ weights - y) ** 2)


def main():
    rounds = int(sys.argv[1])
    key = jax.random.PRNGKey(1)
    state = jnp.ones((200, 200))
    x = jax.random.normal(key, (100, 5))
    y = x @ jnp.arange(5.0)
    weights = jnp.zeros(5)
    gradient = jax.jit(jax.grad(loss))
    for r in range(rounds):
        key, now = jax.random.split(key)
        state = step(state, now)
        pyheap.epoch()  # nobody has waited for the step
        weights = weights - 0.1 * gradient(weights, x, y)
        if r % 15 == 0:  # of another shape: compiled now
            assert int(jax.jit(lambda n: n.sum())(jnp.arange(r + 1))) == r * (r + 1) // 2
        assert state.shape == (200, 200)
        if r % 10 == 0:
            print(r, f"{float(state.sum()):.2f} {float(loss(weights, x, y)):.5f}")
    assert float(loss(weights, x, y)) < 1


main()
