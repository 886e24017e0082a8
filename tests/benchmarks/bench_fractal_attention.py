"""What fractal attention costs: ``python tests/benchmarks/bench_fractal_attention.py``.

Batch 1, 4 heads of 32, float32, one thread. All timings of a table are taken in one process, the ways taking turns, and
given as the least CPU time of a call: on a shared machine that hardly depends on the neighbours. Ratios are against
causal ``scaled_dot_product_attention`` in the same table. Each peak of memory is taken in a process of its own. Where
the package ``local-attention`` is installed, it is one of the ways.
"""

import argparse
import gc
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from atlaskit import fractal_attention as fa
from atlaskit.fractal_attention.reach import rows_of_keys

BLOCK = 64
WAYS: dict[str, fa.Pattern | None] = {
    "sdpa causal": None,
    "lags log2": fa.log_lags(),
    "lags dragon": fa.dragon_lags(),
    "window 12": fa.sliding(12),
    "window 64": fa.sliding(64),
    "window 64 + log2": fa.union(fa.sliding(64), fa.log_lags()),
    "hilbert window": fa.hilbert_window(),
    "blocks log2": fa.blocked(fa.log_lags(), BLOCK),
    "blocks cantor": fa.blocked(fa.cantor(), BLOCK),
    "blocks sierpinski": fa.blocked(fa.sierpinski(), BLOCK),
}
# a window of as many blocks a row as the fractal has in the mean, at each length
EQUAL_WINDOWS = {"window ~ blocks log2": fa.log_lags(), "window ~ blocks cantor": fa.cantor()}
LOCAL = "local-attention package"
QUADRATIC = "sdpa causal"
DECODING = ("sdpa causal", "lags log2", "lags dragon", "window 12", "window 64", "blocks log2", "blocks cantor")

TUTORIAL = {  # what the tutorial states, in ms, for one query at 256, 1,024 and 4,096 keys; no code stood behind it
    "standard attention": ("45", "712", "OOM"),
    "HilbertCurveAttention": ("12", "14", "18"),
    "CantorSetAttention": ("8", "11", "15"),
    "DragonCurveAttention": ("11", "18", "32"),
    "JuliaSetAttention": ("15", "24", "45"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="*", default=[256, 1024, 4096, 16384, 65536])
    parser.add_argument("--dense-up-to", type=int, default=16384, help="dense attention takes minutes at 65536")
    parser.add_argument("--memory", type=int, nargs="*", default=[4096, 16384], help="lengths to take peaks of")
    parser.add_argument(
        "--cache", type=int, nargs="*", default=[1024, 4096, 16384, 65536], help="caches to decode from"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", nargs=2, metavar=("WAY", "TOKENS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.peak:
        print(peak(asked.peak[0], int(asked.peak[1])))
        return
    print(f"{platform.machine()}, one thread, torch {torch.__version__}; load {os.getloadavg()[0]:.1f}")
    times: dict[str, dict[str, dict[int, float]]] = {}
    for kind in ("forward", "forward + backward"):
        times[kind] = {}
        for n in asked.tokens:
            ways = [way for way in every_way() if way != QUADRATIC or n <= asked.dense_up_to]
            calls = {way: call(way, n, backward=kind != "forward") for way in ways}
            for way, seconds in least(calls, repeats_for(n, asked.repeats)).items():
                times[kind].setdefault(way, {})[n] = seconds
        if asked.tokens:
            print_times(kind, times[kind], asked.tokens)
    print_decoding(asked.cache, asked.repeats)
    if asked.memory:
        print_peaks(asked.memory)
    print_tutorial(asked.repeats)


def every_way() -> list[str]:
    ways = [*WAYS, *EQUAL_WINDOWS]
    try:
        import local_attention  # noqa: F401
    except ImportError:
        print(f"({LOCAL} is not installed, so it is not beside us)", file=sys.stderr)
        return ways
    return [*ways, LOCAL]


def repeats_for(n: int, repeats: int) -> int:
    return repeats if n < 16384 else min(repeats, 3)


def heads(n: int, *, n_query: int | None = None, grad: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = (n_query or n, n, n)
    return [torch.randn(1, 4, size, 32, generator=generator).requires_grad_(grad) for size in sizes]


def attention(way: str, n: int) -> Callable[..., Tensor]:
    if way == QUADRATIC:
        return lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] == n)
    if way == LOCAL:
        from local_attention import LocalAttention

        return LocalAttention(window_size=64, causal=True, look_forward=0, use_rotary_pos_emb=False, autopad=True)
    pattern = WAYS.get(way)
    if pattern is None:
        pattern = equal_window(EQUAL_WINDOWS[way], n)
    # blocks are timed as blocks at every length; the automatic choice would be dense below a few of them
    kernel = "block" if pattern.coarse is not None else "auto"
    return lambda q, k, v: fa.attend(q, k, v, patterns=pattern, kernel=kernel if q.shape[2] == n else "auto")


def equal_window(pattern: fa.Pattern, n: int) -> fa.Pattern:
    return fa.blocked(fa.sliding(max(1, round(fa.keys_per_query(pattern, math.ceil(n / BLOCK))))), BLOCK)


def call(way: str, n: int, *, backward: bool) -> Callable[[], None]:
    q, k, v = heads(n, grad=backward)
    attend, upstream = attention(way, n), torch.ones(1, 4, n, 32)

    def once() -> None:
        if backward:
            torch.autograd.grad(attend(q, k, v), (q, k, v), upstream)
        else:
            with torch.no_grad():
                attend(q, k, v)

    return once


def least(calls: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Least CPU seconds of each call, after one that does not count; the calls take turns."""
    found = dict.fromkeys(calls, math.inf)
    for turn in range(repeats + 1):
        for name, once in calls.items():
            begun = time.process_time()
            once()
            if turn:
                found[name] = min(found[name], time.process_time() - begun)
    return found


def exponent(by_size: dict[int, float]) -> float:
    """Slope of log time over log length from 1,024 tokens up, by least squares."""
    points = [(math.log(n), math.log(seconds)) for n, seconds in by_size.items() if n >= 1024]
    if len(points) < 2:
        return math.nan
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def keys_of(way: str, n: int) -> float:
    if way == QUADRATIC:
        return (n + 1) / 2
    if way == LOCAL:
        return min(n, 96)
    pattern = WAYS.get(way)
    if pattern is None:
        pattern = equal_window(EQUAL_WINDOWS[way], n)
    if pattern.coarse is None:
        return fa.keys_per_query(pattern, n) if pattern.lag_set else math.nan
    return fa.keys_per_query(pattern.coarse, math.ceil(n / BLOCK)) * BLOCK - (BLOCK - 1) / 2


def print_times(kind: str, times: dict[str, dict[int, float]], sizes: Iterable[int]) -> None:
    print(f"\n{kind}: ms, and how many times faster than causal SDPA; keys a query at the longest; exponent from 1,024")
    print("way".ljust(24) + "".join(f"{n:>18,}" for n in sizes) + f"{'keys':>8}{'exponent':>10}")
    dense = times[QUADRATIC]
    for way, by_size in times.items():
        cells = [
            f"{by_size[n] * 1e3:9.2f}" + (f" {dense[n] / by_size[n]:7.1f}x" if n in dense else " " * 9)
            if n in by_size
            else " " * 18
            for n in sizes
        ]
        print(f"{way:24}{''.join(cells)}{keys_of(way, max(by_size)):8.0f}{exponent(by_size):10.2f}")


def print_decoding(caches: Iterable[int], repeats: int) -> None:
    """The cache is one token longer at every call, as in decoding: nothing that depends on its length is at hand."""
    caches, turns = list(caches), 6 * repeats
    patterns = {way: WAYS[way] for way in DECODING} | {"cantor": fa.cantor()}
    rows: dict[str, list[float]] = {way: [] for way in patterns}
    keys: dict[str, list[int]] = {way: [] for way in patterns}
    for n in caches:
        q, k, v = heads(n, n_query=1)
        for way, pattern in patterns.items():
            found = math.inf
            for length in range(n - turns, n + 1):
                near = q, k[:, :, :length], v[:, :, :length]
                begun = time.process_time()
                with torch.no_grad():
                    if pattern is None:
                        torch.nn.functional.scaled_dot_product_attention(*near)
                    else:
                        fa.attend(*near, patterns=pattern)
                found = min(found, time.process_time() - begun)
            rows[way].append(found)
            keys[way].append(n if pattern is None else int(rows_of_keys(pattern, n, first=n - 1)[1]))
    print("\none decoded token from a cache that grows: keys that it reads, ms, and how many times faster than dense")
    print("way".ljust(24) + "".join(f"{n:>26,}" for n in caches))
    for way, seconds in rows.items():
        dense = rows[QUADRATIC]
        cells = (
            f"{read:8,}{mine * 1e3:9.3f} {all_keys / mine:7.1f}x"
            for read, mine, all_keys in zip(keys[way], seconds, dense, strict=True)
        )
        print(f"{way:24}{''.join(cells)}")


def peak(way: str, n: int) -> float:
    """Most memory, in MB, that one forward and backward takes above what is there before; a short call comes first."""
    call(way, 256, backward=True)()
    once = call(way, n, backward=True)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak that imports left (Linux)
    before = resident("VmRSS")
    once()
    return (resident("VmHWM") - before) / 1e3


def resident(field: str) -> int:
    """One of the kernel's figures on this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def print_peaks(sizes: Iterable[int]) -> None:
    sizes = list(sizes)
    print("\nforward + backward: most memory above the inputs, MB")
    print("way".ljust(24) + "".join(f"{n:>10,}" for n in sizes))
    for way in every_way():
        peaks = [
            float(subprocess.check_output([sys.executable, __file__, "--peak", way, str(n)], text=True)) for n in sizes
        ]
        print(f"{way:24}" + "".join(f"{found:10.0f}" for found in peaks), flush=True)


def print_tutorial(repeats: int) -> None:
    """One query and a whole layer at width 128, beside what the tutorial states for one query."""
    sizes = (256, 1024, 4096)
    print("\nthe tutorial's figures (ms, one query) beside ours: one query / a whole layer of n queries, width 128")
    print("layer".ljust(24) + "".join(f"{n:>28,}" for n in sizes))
    config = fa.FractalConfig(n_head=4)
    for name, stated in TUTORIAL.items():
        cells = []
        for n, claim in zip(sizes, stated, strict=True):
            x = torch.randn(1, n, 128, generator=torch.Generator().manual_seed(0))
            if name == "standard attention":
                q, k, v = heads(n)
                calls = {
                    "one": lambda q=q, k=k, v=v: torch.nn.functional.scaled_dot_product_attention(q[:, :, -1:], k, v),
                    "layer": call(QUADRATIC, n, backward=False),
                }
            else:
                layer = getattr(fa, name)(config)
                calls = {
                    "one": lambda layer=layer, x=x: layer(x[:, -1:], x, x),
                    "layer": lambda layer=layer, x=x: layer(x),
                }
            with torch.no_grad():
                ours = least(calls, repeats)
            cells.append(f"{claim:>10} | {ours['one'] * 1e3:5.2f} / {ours['layer'] * 1e3:6.1f}")
        print(f"{name:24}{''.join(cell.rjust(28) for cell in cells)}")


if __name__ == "__main__":
    main()
