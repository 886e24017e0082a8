"""How long dimensions with surrogates take: all heads at once, beside the same definitions head by head in NumPy.

    python tests/benchmarks/bench_fractal.py [heads tokens draws]

The NumPy loops are timed on every `STRIDE`-th head and scaled up. On the CPU every contender has one thread and its
time is the processor's, which a busy machine disturbs least; on a GPU it is the clock's. The fastest repeat counts.
"""

import importlib.util
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from atlaskit import measure

ORDERS = (0.0, 0.5, 1.0, 2.0, 5.0)
STRIDE = 12

spec = importlib.util.spec_from_file_location(
    "numpy_fractal", Path(__file__).parents[1] / "measure" / "numpy_fractal.py"
)
twin = importlib.util.module_from_spec(spec)
spec.loader.exec_module(twin)


def at_once(pattern, support, draws):
    boxes = measure.coarse_grain(pattern)

    def slopes(boxes):
        return measure.generalized_dimensions(boxes, ORDERS).slope

    slopes(boxes)
    return measure.surrogates(slopes, pattern, support, like=boxes, draws=draws, seed=0)


def faa_loop(patterns, support, draws):
    """FAA's one number for the same heads and surrogates, by FAA's own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fractal_attention_analysis import FractalTransforms
    transforms, rng = FractalTransforms(), np.random.default_rng(0)
    for pattern in patterns:
        transforms.compute_fractal_dimension(pattern)
        for _ in range(draws):
            transforms.compute_fractal_dimension(twin.permuted_rows(pattern, support, rng))


def best_of(repeats, work, clock=time.process_time):
    times = []
    for _ in range(repeats):
        started = clock()
        work()
        times.append(clock() - started)
    return min(times)


def main(heads=144, tokens=256, draws=20):
    torch.set_num_threads(1)
    support = measure.causal(tokens)
    scores = torch.randn(heads, tokens, tokens, generator=torch.Generator().manual_seed(0))
    pattern = scores.masked_fill(~support, float("-inf")).softmax(-1)
    some, mask = pattern[::STRIDE].numpy(), support.numpy()
    share = heads / len(some)
    rows = {
        "atlaskit, CPU, 5 orders": best_of(3, lambda: at_once(pattern, support, draws)),
        "NumPy, head by head, 5 orders": share
        * best_of(2, lambda: twin.dimensions_and_surrogates(some, mask, orders=ORDERS, draws=draws, seed=0)),
        "FAA's code, its single number": share * best_of(2, lambda: faa_loop(some, mask, draws)),
    }
    if torch.cuda.is_available():
        on_gpu, support_gpu = pattern.cuda(), support.cuda()
        rows["atlaskit, GPU, 5 orders"] = best_of(
            3, lambda: (at_once(on_gpu, support_gpu, draws), torch.cuda.synchronize()), clock=time.perf_counter
        )
    ours = rows["atlaskit, CPU, 5 orders"]
    print(f"{heads} heads, {tokens} tokens, {draws} surrogates each, one thread, torch {torch.__version__}")
    for name, seconds in rows.items():
        print(f"{name:32s} {seconds:8.3f} s {seconds / ours:8.1f} x")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
