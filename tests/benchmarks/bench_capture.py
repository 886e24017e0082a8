"""What a survey costs beside the bare forward pass and beside other ways: ``python tests/benchmarks/bench_capture.py``.

The network has GPT-2-small's shape (12 layers × 12 heads × 768) with random weights and a small vocabulary; only its
trunk runs, since no score needs the language-model head. Beyond 16,384 tokens it has two layers instead of twelve. All
timings of a table are taken in one process, the ways taking turns, and given as CPU seconds (of all threads): on a
shared machine these hardly depend on the neighbours. Each ratio is the minimum of one over the minimum of the other.
Peaks of memory are each measured in a process of its own.
"""

import argparse
import contextlib
import gc
import io
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from atlaskit import measure, models

VOCABULARY = 1000
SCORES = {
    "entropy": measure.entropy,
    "effective keys": measure.effective_keys,
    "max weight": measure.max_weight,
    "concentration": measure.concentration,
    "mean distance": measure.mean_distance,
    "previous token": measure.mass_on(measure.previous_token),
    "first token": measure.mass_on(measure.first_token),
    "own token": measure.mass_on(measure.own_token),
    "same token": measure.mass_on(measure.same_token),
    "induction": measure.mass_on(measure.induction),
}
MOMENTS = {
    "entropy": measure.moments.entropy,
    "effective keys": measure.moments.effective_keys,
    "concentration": measure.moments.concentration,
    "mean lag": measure.moments.mean_lag,
    "first token": measure.moments.mass_on(measure.first_token),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="*", default=[512], help="lengths to time (4096 takes minutes)")
    parser.add_argument("--memory", type=int, nargs="*", default=[1024, 4096, 16384], help="lengths to take peaks of")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", nargs=2, metavar=("WAY", "TOKENS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak:
        print(json.dumps(peak(asked.peak[0], int(asked.peak[1]))))
        return
    threads = f"{torch.get_num_threads()} threads"
    print(f"{platform.machine()}, {threads}, torch {torch.__version__}, transformers {transformers.__version__}")
    for n in asked.tokens or ():
        print_times(n, asked.repeats)
    if find_spec("fractal_attention_analysis"):
        print_faa()
    else:
        print("\npip install fractal-attention-analysis seaborn to compare with it")
    if asked.memory:
        print_peaks(asked.memory)


def print_times(n: int, repeats: int) -> None:
    model = gpt2_small(max(n, 128))
    ids = text(n)
    ways: dict[str, Callable[[], object]] = {
        "bare forward": lambda: bare(model, ids),
        "survey, ten measures": lambda: survey(model, ids),
        "survey, five measures by moments": lambda: by_moments(model, ids),
    }
    if n <= 1024:  # beyond this, all patterns at once do not fit a laptop
        ways["eager output_attentions, ten measures"] = lambda: eager(model, ids)
    seconds = take_turns(ways, repeats)
    title = f"{n} tokens, {n_layer(n)} layers, {repeats} repeats"
    print(f"\n{title:37} CPU s (min)  median  × bare")
    for way, taken in seconds.items():
        ratio = min(taken) / min(seconds["bare forward"])
        print(f"{way:40} {min(taken):8.3f} {statistics.median(taken):8.3f} {ratio:7.2f}")


def print_faa(n: int = 128, heads: int = 3) -> None:
    """All heads of one text: a survey, and FAA's `analyze`, which looks at one head a call (a few are timed)."""
    from fractal_attention_analysis import FractalAttentionAnalyzer

    model = gpt2_small(n)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = Whitespace()
    ids = text(n)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        model.net.save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=n, pad_token="w0").save_pretrained(folder)
        rival = FractalAttentionAnalyzer(folder)
        sentence = " ".join(f"w{i}" for i in ids)
        ways: dict[str, Callable[[], object]] = {
            "survey": lambda: survey(model, ids),
            "analyze": lambda: [rival.analyze(sentence, layer_idx=0, head_idx=head) for head in range(heads)],
        }
        seconds = take_turns(ways, repeats=3)
    n_head = sum(site.n_head for site in model.sites)
    ours, theirs = min(seconds["survey"]), min(seconds["analyze"]) / heads * n_head
    print(f"\n{n} tokens, all {n_head} heads: survey {ours:.2f} s, fractal-attention-analysis {theirs:.1f} s "
          f"({heads} heads timed), {theirs / ours:.0f} times")  # fmt: skip


def print_peaks(lengths: list[int]) -> None:
    print("\npeak memory above the loaded model, MB")
    print(f"{'tokens':>8} {'bare':>8} {'survey':>8} {'ratio':>7} {'survey grew':>12} {'moments':>8} {'ratio':>7}")
    before: dict[str, float] = {}
    for n in lengths:
        taken = {}
        for way in ("bare", "survey", "moments"):
            told = subprocess.run(
                [sys.executable, __file__, "--peak", way, str(n)], capture_output=True, text=True, check=True
            )
            taken[way] = json.loads(told.stdout)
        grew = f"{taken['survey'] / before['survey']:.2f}×" if before else ""
        ratios = {way: peak / taken["bare"] for way, peak in taken.items()}
        print(f"{n:8} {taken['bare']:8.0f} {taken['survey']:8.0f} {ratios['survey']:7.2f} {grew:>12} "
              f"{taken['moments']:8.0f} {ratios['moments']:7.2f}", flush=True)  # fmt: skip
        before = taken


def take_turns(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each way, run in turn so that a busy moment of the machine touches all of them."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for way in ways.values():
        way()
    for _ in range(repeats):
        for name, way in ways.items():
            gc.collect()
            start = time.process_time()
            way()
            seconds[name].append(time.process_time() - start)
    return seconds


def peak(way: str, n: int) -> float:
    """Megabytes that one way needed above the loaded model."""
    model = gpt2_small(n)
    run = {"bare": bare, "survey": survey, "moments": by_moments}[way]
    run(model, text(64))  # what the first call of anything allocates once is not the length's doing
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # start the high-water mark anew (Linux)
    before = high_water()
    run(model, text(n))
    return high_water() - before


def high_water() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def gpt2_small(context: int) -> models.Model:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=context, n_layer=n_layer(context), bos_token_id=1, eos_token_id=1
    )
    net = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for block in net.transformer.h:
            block.attn.c_attn.weight.normal_(std=0.06)  # so that rows are neither flat nor one-hot
    return models.wrap(net, name="gpt2 shape")


def n_layer(context: int) -> int:
    return 12 if context <= 16384 else 2


def text(n: int) -> list[int]:
    return torch.randint(VOCABULARY, (n,), generator=torch.Generator().manual_seed(0)).tolist()


def bare(model: models.Model, ids: list[int]) -> None:
    model.net.set_attn_implementation("sdpa")
    with torch.inference_mode():
        model.net.base_model(input_ids=torch.tensor([ids]), use_cache=False)


def survey(model: models.Model, ids: list[int]) -> None:
    models.survey(model, [ids], SCORES, progress=False)


def by_moments(model: models.Model, ids: list[int]) -> None:
    models.survey(model, [ids], MOMENTS, progress=False)


def eager(model: models.Model, ids: list[int]) -> dict[str, list[Tensor]]:
    """The same ten measures of whole patterns, taken from the model's own output."""
    model.net.set_attn_implementation("eager")
    tokens = model.tokens(ids)
    with torch.inference_mode():
        told = model.net.base_model(input_ids=torch.tensor([ids]), use_cache=False, output_attentions=True)
        support = measure.causal(len(ids))
        rows = {"support": support, "tokens": tokens, "queries": torch.arange(len(ids))}
        plain = ("entropy", "effective keys", "max weight", "concentration", "mean distance")
        return {
            name: [score(layer[0], support) if name in plain else score(layer[0], **rows) for layer in told.attentions]
            for name, score in SCORES.items()
        }


if __name__ == "__main__":
    main()
