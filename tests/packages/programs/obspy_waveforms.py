# SPDX-License-Identifier: MIT
"""ObsPy: seismograms in miniSEED and SAC, filters, triggers in C, travel times through a model of the
Earth, a file that is read trace by trace.

live: rounds=20 needs=obspy
"""
import io
import sys

import numpy as np
import obspy
import pyheap
from obspy.signal.cross_correlation import correlate, xcorr_max
from obspy.signal.trigger import classic_sta_lta, recursive_sta_lta, trigger_onset
from obspy.taup import TauPyModel


def seismogram(r, random):
    data = random.normal(size=3000)
    data[1000 + r % 500:1400 + r % 500] += 20 * np.sin(np.arange(400) / 3)
    return obspy.Trace(data, {"network": "XX", "station": f"S{r % 9}", "sampling_rate": 50.0,
                              "starttime": obspy.UTCDateTime(2020, 1, 1) + r * 60})


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(5)
    model = TauPyModel("iasp91")
    before = seismogram(0, random)
    found, late = 0, iter(())
    with open("all.mseed", "wb") as file:
        for r in range(rounds):
            trace = seismogram(r, random)
            stream = obspy.Stream([trace.copy(), before.copy()])
            stream.filter("bandpass", freqmin=1, freqmax=10, corners=3)
            stream.detrend("linear").taper(0.05)
            trigger = recursive_sta_lta(stream[0].data, 50, 500)
            stream.write(file, "MSEED", encoding="FLOAT64", reclen=512)
            pyheap.epoch()
            assert trigger.shape == classic_sta_lta(stream[0].data, 50, 500).shape
            found += len(trigger_onset(trigger, 2.5, 1))
            shift, value = xcorr_max(correlate(stream[0], stream[1], 200))
            assert abs(value) <= 1.0001
            kept = io.BytesIO()
            stream[0].write(kept, "SAC")
            kept.seek(0)
            assert np.allclose(obspy.read(kept)[0].data, stream[0].data, atol=1e-4)
            arrival = next(late, None)
            if arrival is None:
                late = iter(model.get_travel_times(10 + r % 50, 20 + r % 70, ["P", "S", "PcP"]))
                arrival = next(late)
            before = trace
            if r % 5 == 0:
                print(r, found, shift, arrival.name, f"{arrival.time:.3f} {value:.4f}")
    again = obspy.read("all.mseed")
    assert len(again.merge()) <= 9 and again[0].stats.network == "XX"


main()
