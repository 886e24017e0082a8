"""Truth and law: rows become batches with the right tokens hidden."""

import pytest
import torch

from atlaskit.training import causal_batch, masked_batch, windows


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_windows_are_runs_of_the_stream():
    rows = windows(torch.arange(100), rows=20, length=7, generator=_generator())
    assert rows.shape == (20, 7)
    assert (rows.diff(dim=1) == 1).all()
    assert rows.min() >= 0
    assert rows.max() <= 99


def test_a_stream_as_long_as_a_row_gives_itself():
    rows = windows(torch.arange(7), rows=3, length=7, generator=_generator())
    assert (rows == torch.arange(7)).all()


def test_a_text_shorter_than_a_row_is_refused():
    with pytest.raises(ValueError, match="has 6 tokens, a row needs 7"):
        windows(torch.arange(6), rows=1, length=7, generator=_generator())


def test_a_causal_batch_skips_what_it_is_told_to_skip():
    rows = torch.tensor([[5, 6, 7]])
    batch = causal_batch(rows, skip=torch.tensor([[False, True, False]]))
    assert batch["input_ids"].tolist() == [[5, 6, 7]]
    assert batch["labels"].tolist() == [[5, -100, 7]]


def test_masking_hides_the_stated_share_and_no_special_token():
    special = torch.zeros(50, dtype=torch.bool)
    special[:5] = True
    rows = torch.randint(50, (400, 100), generator=_generator(1))
    batch = masked_batch(rows, special=special, mask_id=4, rate=0.2, generator=_generator(2))
    chosen = batch["labels"] != -100
    assert not chosen[special[rows]].any()
    assert (batch["input_ids"][~chosen] == rows[~chosen]).all()
    assert (batch["labels"][chosen] == rows[chosen]).all()
    # Each share of n independent draws lies within five standard deviations of its probability.
    open_to_choice = (~special[rows]).sum().item()
    assert _near(chosen.sum().item(), open_to_choice, 0.2)
    n = chosen.sum().item()
    shown = batch["input_ids"][chosen]
    assert _near((shown == 4).sum().item(), n, 0.8)
    # A tenth are kept, and of the tenth drawn at random one in 45 comes out as it was.
    assert _near((shown == rows[chosen]).sum().item(), n, 0.1 + 0.1 / 45)
    assert not special[shown[shown != 4]].any()


def _near(count, n, p):
    return abs(count - n * p) <= 5 * (n * p * (1 - p)) ** 0.5
