"""Aggregate updates of 50 MB: streaming mean against NumPy's mean of a list, time and peak memory.

    python benchmarks/aggregation.py [--updates 100] [--megabytes 50]

Each measurement is a process of its own, so that peak memory is that of the way measured. Updates
arrive as safetensors bytes, one at a time, and are checked as in a round (shapes, finite, norm).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from common.protocol.arrays import decode_parameters, encode_parameters, is_finite, l2_norm
from server.aggregation import WeightedMean


def one_update(shape: tuple[int, ...], seed: int) -> bytes:
    rng = np.random.default_rng(seed % 4)
    return encode_parameters({"w": rng.standard_normal(shape, dtype=np.float32)})


def streaming(updates: int, shape: tuple[int, ...]) -> float:
    mean, spent = WeightedMean({"w": shape}), 0.0
    for seed in range(updates):
        content = one_update(shape, seed)
        started = time.perf_counter()
        arrays = decode_parameters(content, expected={"w": shape}, bytes_max=len(content))
        if not is_finite(arrays) or l2_norm(arrays) > 1e9:
            raise SystemExit("the update checks failed")
        mean.add(arrays, weight=100.0 + seed)
        spent += time.perf_counter() - started
    started = time.perf_counter()
    mean.mean()
    return spent + time.perf_counter() - started


def numpy_mean(updates: int, shape: tuple[int, ...]) -> float:
    contents, spent = [one_update(shape, seed) for seed in range(updates)], 0.0
    started = time.perf_counter()
    arrays = [
        decode_parameters(content, expected={"w": shape}, bytes_max=len(content))["w"]
        for content in contents
    ]
    np.average(arrays, axis=0, weights=[100.0 + seed for seed in range(updates)])
    return spent + time.perf_counter() - started


def measure(way: str, updates: int, megabytes: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--way", way, "--updates", str(updates)]
    command += ["--megabytes", str(megabytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--way", choices=["streaming", "numpy"])
    chosen = parser.parse_args()
    shape = (chosen.megabytes * 250_000,)
    if chosen.way:
        run = streaming if chosen.way == "streaming" else numpy_mean
        seconds = run(chosen.updates, shape)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(json.dumps({"seconds": seconds, "peak_mb": peak_mb}))
        return
    rows = []
    for updates in (10, chosen.updates):
        rows.append(("streaming", updates, measure("streaming", updates, chosen.megabytes)))
    # NumPy's mean needs all updates and a float64 copy at once: 20 fit where 100 do not.
    fewer = min(20, chosen.updates)
    rows.append(("streaming", fewer, measure("streaming", fewer, chosen.megabytes)))
    rows.append(("numpy.average", fewer, measure("numpy", fewer, chosen.megabytes)))
    print(f"| way | updates of {chosen.megabytes} MB | seconds | seconds an update | peak MB |")
    print("|---|---|---|---|---|")
    for way, updates, result in rows:
        each = result["seconds"] / updates
        print(
            f"| {way} | {updates} | {result['seconds']:.2f} | {each:.3f} | "
            f"{result['peak_mb']:.0f} |"
        )


if __name__ == "__main__":
    main()
