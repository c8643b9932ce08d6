# SPDX-License-Identifier: MIT
"""TensorFlow on the CPU: functions traced into graphs before and after the recovery, its pools of
threads, a variable and an optimiser's slots, a dataset half-way with a thread that reads ahead.

live: rounds=15 needs=tensorflow environment=TF_CPP_MIN_LOG_LEVEL=3
"""
import sys

import pyheap
import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(2)
tf.config.threading.set_inter_op_parallelism_threads(2)


def main():
    rounds = int(sys.argv[1])
    x = tf.reshape(tf.range(4000, dtype=tf.float32), (500, 8)) / 4000
    y = tf.reduce_sum(x, axis=1, keepdims=True)
    batches = iter(tf.data.Dataset.from_tensor_slices((x, y)).repeat().batch(50).prefetch(2))
    weights, slot = tf.Variable(tf.zeros((8, 1))), tf.Variable(tf.zeros((8, 1)))

    @tf.function
    def step(inputs, wanted):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((inputs @ weights - wanted) ** 2)
        slot.assign(0.9 * slot + tape.gradient(loss, weights))
        weights.assign_sub(0.02 * slot)
        return loss

    for r in range(rounds):
        loss = step(*next(batches))
        with tf.GradientTape() as tape:
            inputs, wanted = next(batches)
            other = tf.reduce_mean((inputs @ weights - wanted) ** 2)
            pyheap.epoch()  # the tape is recording, the next batches are being read
        gradient = tape.gradient(other, weights)
        assert gradient.shape == (8, 1)
        if r % 15 == 0:  # of another shape: traced now
            total = tf.function(lambda n: tf.reduce_sum(n))(tf.range(r + 1))
            assert int(total) == r * (r + 1) // 2
        if r % 10 == 0:
            print(r, f"{float(loss):.5f}")


main()
