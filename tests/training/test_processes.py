"""Twin: two processes on the CPU against one; killed and resumed against whole."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from atlaskit.training import Curve, Plan, causal_batch, copy, small_decoder, train

TASK = copy(3, length=12, rows=6)
PLAN = Plan(steps=8, learning_rate=1e-2, warmup=2, checkpoint_every=2, evaluate_every=4)


def batch(step):
    """Rows that ask for unequal numbers of tokens, so that a mean of the processes' means would be wrong."""
    rows = TASK.batch(step)["input_ids"]
    return causal_batch(rows, skip=torch.arange(12) > torch.arange(12)[:6, None] * 2 + 1)


def train_into(folder):
    """What each process runs: once whole, and once killed after step 4 and started again."""

    def killed(step):
        if step == 5:
            raise KeyboardInterrupt
        return batch(step)

    train(small_decoder(TASK), batch, PLAN, seed=0, folder=folder / "whole", held_out=[batch(99)], progress=False)
    try:
        train(small_decoder(TASK), killed, PLAN, seed=0, folder=folder / "parts", progress=False)
    except KeyboardInterrupt:
        train(small_decoder(TASK), batch, PLAN, seed=0, folder=folder / "parts", held_out=[batch(99)], progress=False)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder that two processes filled together."""
    folder = tmp_path_factory.mktemp("two")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    done = subprocess.run([*launch, str(folder)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_two_processes_train_the_model_that_one_does(two, tmp_path):
    alone = small_decoder(TASK)
    curve = train(alone, batch, PLAN, seed=0, folder=tmp_path, held_out=[batch(99)], progress=False)
    shared = Curve.read(two / "whole/curve.json")
    assert shared.loss == pytest.approx(curve.loss, rel=1e-4)
    assert shared.gradient_norm == pytest.approx(curve.gradient_norm, rel=1e-3)
    assert shared.held_out == pytest.approx(curve.held_out, rel=1e-4)
    assert shared.tokens == curve.tokens
    weights = load_file(two / "whole/checkpoint/model.safetensors")
    for name, weight in load_file(tmp_path / "checkpoint/model.safetensors").items():
        if name.endswith("c_attn.bias"):
            continue  # no softmax feels a bias of the keys: its gradient is rounding, which AdamW makes as large as any
        torch.testing.assert_close(weights[name], weight, rtol=1e-2, atol=1e-3)


def test_two_processes_killed_and_started_again_end_in_the_same_bytes(two):
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (two / "whole/checkpoint" / file).read_bytes() == (two / "parts/checkpoint" / file).read_bytes(), file


if __name__ == "__main__":
    train_into(Path(sys.argv[1]))
