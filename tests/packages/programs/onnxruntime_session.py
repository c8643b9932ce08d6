# SPDX-License-Identifier: MIT
"""ONNX Runtime: a session with its pool of threads and its arena, a model made with onnx.

live: rounds=40 needs=onnx,onnxruntime
"""
import sys

import numpy as np
import onnx
import onnxruntime
import pyheap
from onnx import TensorProto, helper


def model():
    """tanh(x @ w)"""
    w = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32) / 8
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Tanh", ["p"], ["y"])],
        "step", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 64])],
        [helper.make_tensor("w", TensorProto.FLOAT, w.shape, w.tobytes(), raw=True)])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def main():
    rounds = int(sys.argv[1])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 3
    session = onnxruntime.InferenceSession(model(), options, providers=["CPUExecutionProvider"])
    x = np.ones((500, 64), dtype=np.float32)
    for r in range(rounds):
        x, = session.run(None, {"x": x + 0.1})
        pyheap.epoch()
        if r % 15 == 0:  # another one, made after a recovery
            other = onnxruntime.InferenceSession(model(), options,
                                                 providers=["CPUExecutionProvider"])
            assert np.array_equal(other.run(None, {"x": x})[0], session.run(None, {"x": x})[0])
        if r % 10 == 0:
            print(r, f"{float(x.mean()):.4f}")


main()
