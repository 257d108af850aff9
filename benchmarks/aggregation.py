"""Aggregate updates of 50 MB: our streaming mean against NumPy's mean and Flower's aggregation.

    python benchmarks/aggregation.py [--updates 100] [--megabytes 50]

Each measurement is a process of its own, so that peak memory is that of the way measured. Only ours
also decodes and checks each update (shapes, finite, norm), as a round does; that time is in its
row. The rivals get arrays that are ready, since that is what they start from.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from common.protocol.arrays import decode_parameters, encode_parameters, is_finite, l2_norm
from server.aggregation import WeightedMean

Shape = tuple[int, ...]


def one_update(shape: Shape, seed: int) -> bytes:
    rng = np.random.default_rng(seed % 4)
    return encode_parameters({"w": rng.standard_normal(shape, dtype=np.float32)})


def streaming(updates: int, shape: Shape) -> float:
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


def _ready(updates: int, shape: Shape) -> list[np.ndarray]:
    arrays = []
    for seed in range(updates):
        content = one_update(shape, seed)
        decoded = decode_parameters(content, expected={"w": shape}, bytes_max=len(content))
        arrays.append(decoded["w"].copy())
    return arrays


def numpy_mean(updates: int, shape: Shape) -> float:
    arrays = _ready(updates, shape)
    started = time.perf_counter()
    np.mean(arrays, axis=0)
    return time.perf_counter() - started


def flower(updates: int, shape: Shape) -> float:
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    records = [
        RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(array)}),
                "metrics": MetricRecord({"num-examples": 100.0 + seed}),
            }
        )
        for seed, array in enumerate(_ready(updates, shape))
    ]
    started = time.perf_counter()
    aggregate_arrayrecords(records, "num-examples")
    return time.perf_counter() - started


WAYS: dict[str, Callable[[int, Shape], float]] = {
    "streaming": streaming,
    "numpy.mean": numpy_mean,
    "flower": flower,
}


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
    parser.add_argument("--way", choices=WAYS)
    chosen = parser.parse_args()
    shape = (chosen.megabytes * 250_000,)
    if chosen.way:
        seconds = WAYS[chosen.way](chosen.updates, shape)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(json.dumps({"seconds": seconds, "peak_mb": peak_mb}))
        return
    print(f"| way | updates of {chosen.megabytes} MB | seconds | of ours | peak MB |")
    print("|---|---|---|---|---|")
    for updates in (chosen.updates // 10, chosen.updates):
        ours = measure("streaming", updates, chosen.megabytes)
        for way in WAYS:
            found = ours if way == "streaming" else measure(way, updates, chosen.megabytes)
            ratio = found["seconds"] / ours["seconds"]
            print(
                f"| {way} | {updates} | {found['seconds']:.2f} | {ratio:.2f} | "
                f"{found['peak_mb']:.0f} |"
            )


if __name__ == "__main__":
    main()
