# SPDX-License-Identifier: MIT
"""MuJoCo: a pendulum in a simulation of bodies, its control callback in Python, in which an epoch
is taken while C is in the middle of a step.

live: rounds=60 needs=mujoco
"""
import sys

import mujoco
import pyheap

MODEL = """
<mujoco><option timestep="0.005"/><worldbody>
  <geom type="plane" size="5 5 .1"/>
  <body pos="0 0 1"><joint name="hinge" type="hinge" axis="0 1 0"/>
    <geom type="capsule" fromto="0 0 0 .5 0 0" size=".05"/>
    <body pos=".5 0 0"><joint type="hinge" axis="0 1 0"/>
      <geom type="capsule" fromto="0 0 0 .4 0 0" size=".04"/></body></body>
  <body pos="1 0 .5"><freejoint/><geom type="box" size=".1 .1 .1"/></body>
</worldbody><actuator><motor joint="hinge"/></actuator></mujoco>
"""


def main():
    rounds = int(sys.argv[1])
    model = mujoco.MjModel.from_xml_string(MODEL)
    data = mujoco.MjData(model)
    calls = 0

    def control(model, data):
        nonlocal calls
        data.ctrl[0] = -0.5 * data.qpos[0] - 0.1 * data.qvel[0]
        calls += 1
        if calls % 50 == 0:
            pyheap.epoch()

    mujoco.set_mjcb_control(control)
    for r in range(rounds):
        mujoco.mj_step(model, data, 50)
        assert calls == (r + 1) * 50
        if r % 10 == 0:
            print(r, f"{data.time:.3f} {data.qpos.sum():.9f} {data.ncon}")
    mujoco.set_mjcb_control(None)


main()
