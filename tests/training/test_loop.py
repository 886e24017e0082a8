"""Twin, law and border: the loop against a plain torch loop, a run that was killed against one that was not."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from atlaskit.training import Curve, Plan, causal_batch, held_out_loss, learning_rate, masked_batch, train, windows

WORDS = 40
# A text with a rule to learn: token n+1 follows n, but for one in eight.
TEXT = torch.where(
    torch.rand(2000, generator=torch.Generator().manual_seed(9)) < 0.125,
    torch.randint(5, WORDS, (2000,), generator=torch.Generator().manual_seed(8)),
    5 + torch.arange(2000) % (WORDS - 5),
)


def _decoder(dropout=0.0):
    torch.manual_seed(0)
    rates = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    sizes = {"n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, bos_token_id=0, eos_token_id=0, **sizes, **rates))


def _rows(step):
    return windows(TEXT, rows=8, length=16, generator=torch.Generator().manual_seed(step))


def _next_token(step):
    return causal_batch(_rows(step))


def test_the_loop_equals_a_plain_torch_loop():
    plan = Plan(steps=6, learning_rate=3e-3, warmup=2, weight_decay=0.0, clip=0.5)
    model = _decoder()
    curve = train(model, _next_token, plan, seed=0)

    twin = _decoder().train()
    optimizer = torch.optim.AdamW(twin.parameters(), lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(plan.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, plan)
        loss = twin(**_next_token(step)).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), plan.clip)
        optimizer.step()
        optimizer.zero_grad()
        assert curve.loss[step] == pytest.approx(loss.item(), rel=1e-5)
        assert curve.gradient_norm[step] == pytest.approx(norm.item(), rel=1e-4)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_weight_decay_shrinks_matrices_and_leaves_vectors():
    model = _decoder()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    # Labels that are all ignored but one give almost no gradient to unused words: their rows only decay.
    plan = Plan(steps=1, learning_rate=0.1, weight_decay=0.5)
    rows = torch.zeros(2, 16, dtype=torch.long)
    train(model, lambda step: causal_batch(rows), plan, seed=0)
    unused = model.transformer.wpe.weight[15], before["transformer.wpe.weight"][15]
    # The last position of a row predicts nothing, so its only change is the decay: w (1 - lr * decay).
    torch.testing.assert_close(unused[0], unused[1] * (1 - 0.1 * 0.5))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_killed_and_resumed_run_ends_in_the_same_bytes(tmp_path, dropout, optimizer):
    plan = Plan(12, learning_rate=1e-2, warmup=3, checkpoint_every=4, evaluate_every=4, optimizer=optimizer)
    held_out = [_next_token(1000)]
    train(_decoder(dropout), _next_token, plan, seed=1, folder=tmp_path / "whole", held_out=held_out)

    def killed(step):
        if step == 6:
            raise KeyboardInterrupt
        return _next_token(step)

    with pytest.raises(KeyboardInterrupt):
        train(_decoder(dropout), killed, plan, seed=1, folder=tmp_path / "parts", held_out=held_out)
    assert json.loads((tmp_path / "parts/checkpoint/state.json").read_text())["step"] == 4
    train(_decoder(dropout), _next_token, plan, seed=1, folder=tmp_path / "parts", held_out=held_out)

    for file in (
        "checkpoint/model.safetensors",
        "checkpoint/optimizer.safetensors",
        "checkpoint/state.json",
        "curve.json",
    ):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes(), file


def test_a_kill_between_the_two_renames_leaves_the_older_checkpoint(tmp_path):
    plan = Plan(steps=4, learning_rate=1e-2, checkpoint_every=2)
    train(_decoder(), _next_token, plan, seed=1, folder=tmp_path)
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    model = _decoder()
    curve = train(model, _next_token, plan, seed=1, folder=tmp_path)
    assert len(curve.loss) == 4
    saved = load_file(tmp_path / "checkpoint.old/model.safetensors")
    assert torch.equal(model.transformer.wpe.weight, saved["transformer.wpe.weight"])


def test_nothing_on_disk_is_a_pickle(tmp_path):
    train(_decoder(), _next_token, Plan(steps=2, learning_rate=1e-3, keep=(0, 2)), seed=1, folder=tmp_path)
    assert {file.suffix for file in tmp_path.rglob("*") if file.is_file()} == {".json", ".safetensors"}


def test_the_loss_falls_far_below_the_uniform_guess_for_a_decoder():
    curve = train(_decoder(), _next_token, Plan(steps=150, learning_rate=2e-2, warmup=5), seed=0)
    # A uniform guess costs log 40 = 3.69; knowing the rule costs 0.84 nats: h(1/8) + log(35)/8 about.
    assert curve.loss[0] == pytest.approx(math.log(WORDS), abs=0.3)
    assert sum(curve.loss[-10:]) / 10 < 1.6


def test_the_loss_falls_for_an_encoder():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForMaskedLM(BertConfig(vocab_size=WORDS, max_position_embeddings=16, **sizes))
    special = torch.arange(WORDS) < 5

    def batch(step):
        generator = torch.Generator().manual_seed(step)
        word_of_the_row = torch.randint(5, WORDS, (8, 1), generator=generator).expand(8, 16)
        return masked_batch(word_of_the_row, special=special, mask_id=4, rate=0.2, generator=generator)

    curve = train(model, batch, Plan(steps=300, learning_rate=1e-2, warmup=10), seed=0)
    # A uniform guess costs log 35 = 3.56; the others of the row say the word, so the loss falls far below it.
    assert sum(curve.loss[-10:]) / 10 < math.log(WORDS - 5) - 1


def test_a_loss_that_is_not_a_number_names_its_step_and_leaves_the_weights():
    model = _decoder()
    seen = {}

    def batch(step):
        if step == 3:
            seen["before"] = model.transformer.h[0].mlp.c_fc.weight.detach().clone()
            with torch.no_grad():
                model.transformer.ln_f.bias[0] = torch.nan
        return _next_token(step)

    with pytest.raises(FloatingPointError, match="broke at step 3 of 10: loss nan"):
        train(model, batch, Plan(steps=10, learning_rate=1e-3), seed=0)
    assert torch.equal(model.transformer.h[0].mlp.c_fc.weight, seen["before"])


def test_the_learning_rate_rises_straight_and_falls_as_half_a_cosine():
    plan = Plan(steps=110, learning_rate=2.0, warmup=10, final_fraction=0.1)
    assert [learning_rate(s, plan) for s in (0, 4, 9, 10)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert learning_rate(60, plan) == pytest.approx((2.0 + 0.2) / 2)
    assert learning_rate(110, plan) == pytest.approx(0.2)


def test_a_hold_keeps_the_peak_and_then_falls():
    plan = Plan(steps=110, learning_rate=2.0, warmup=10, hold=50, final_fraction=0.0)
    assert [learning_rate(s, plan) for s in (9, 30, 60)] == [2.0, 2.0, 2.0]
    assert learning_rate(85, plan) == pytest.approx(1.0)
    assert learning_rate(110, plan) == pytest.approx(0.0)


def test_muon_takes_hidden_matrices_and_leaves_the_rest_to_adamw():
    plan = Plan(4, learning_rate=1e-3, weight_decay=0.0, clip=1e9, optimizer="muon")
    model, twin = _decoder(), _decoder().train()
    train(model, _next_token, plan, seed=0)
    hidden = [p for name, p in twin.named_parameters() if ".h." in name and p.ndim == 2]
    rest = [p for name, p in twin.named_parameters() if ".h." not in name or p.ndim != 2]
    muon = torch.optim.Muon(hidden, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(4):
        for optimizer in (muon, adamw):
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = learning_rate(step, plan)
        twin(**_next_token(step)).loss.backward()
        muon.step()
        adamw.step()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-5)


def test_kept_weights_begin_with_the_untrained_model(tmp_path):
    train(_decoder(), _next_token, Plan(steps=3, learning_rate=1e-2, keep=(0, 2)), seed=0, folder=tmp_path)
    assert [file.name for file in sorted((tmp_path / "kept").iterdir())] == ["000000.safetensors", "000002.safetensors"]
    untrained = load_file(tmp_path / "kept/000000.safetensors")["transformer.wpe.weight"]
    assert torch.equal(untrained, _decoder().transformer.wpe.weight)


def test_a_folder_of_another_run_is_refused(tmp_path):
    train(_decoder(), _next_token, Plan(steps=2, learning_rate=1e-3), seed=0, folder=tmp_path)
    with pytest.raises(ValueError, match="another run: seed differ"):
        train(_decoder(), _next_token, Plan(steps=2, learning_rate=1e-3), seed=1, folder=tmp_path)


def test_held_out_loss_is_the_cross_entropy_of_every_predicted_token():
    model = _decoder(dropout=0.5)
    model.train()
    batches = [_next_token(1), {name: value[:3] for name, value in _next_token(2).items()}]
    costs = []
    model.eval()
    for batch in batches:
        logits = model(batch["input_ids"]).logits[:, :-1]
        costs.append(
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="none")
        )
    model.train()
    assert held_out_loss(model, batches) == pytest.approx(torch.cat(costs).mean().item(), rel=1e-5)
    assert model.training


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    model = _decoder()
    torch.manual_seed(5)
    train(model, _next_token, Plan(steps=2, learning_rate=1e-3), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_a_curve_survives_its_file(tmp_path):
    curve = Curve(loss=[1.5, 1.0], gradient_norm=[0.1, 0.2], tokens=64, held_out={2: 1.25})
    curve.save(tmp_path / "curve.json")
    assert Curve.read(tmp_path / "curve.json") == curve


def _broken_weight(model):
    with torch.no_grad():
        model.transformer.ln_f.bias[0] = torch.nan


def _broken_output(model):
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight.fill_(3e38)


def _broken_gradient(model):
    model.transformer.h[0].attn.c_attn.weight.register_hook(lambda gradient: gradient * torch.nan)


@pytest.mark.parametrize(
    ("breaks", "place"),
    [
        (_broken_weight, "the weight transformer.ln_f.bias"),
        (_broken_output, r"the output of transformer.h.0.mlp.c_fc\."),
        (_broken_gradient, "the gradient of transformer.h.0.attn.c_attn.weight"),
    ],
)
def test_a_broken_step_is_traced_to_its_layer(breaks, place):
    model = _decoder()

    def batch(step):
        if step == 2:
            breaks(model)
        return _next_token(step)

    with pytest.raises(FloatingPointError, match=f"broke at step 2 of 4: .* first not finite: {place}"):
        train(model, batch, Plan(steps=4, learning_rate=1e-3), seed=0)


def test_a_batch_that_predicts_nothing_breaks_the_loss_alone():
    def nothing(step):
        rows = _rows(step)
        return causal_batch(rows, skip=torch.ones_like(rows, dtype=torch.bool))

    with pytest.raises(FloatingPointError, match="first not finite: the loss alone"):
        train(_decoder(), nothing, Plan(steps=2, learning_rate=1e-3), seed=0)


def test_a_watcher_sees_the_model_at_rest_and_is_remembered_after_a_kill(tmp_path):
    plan = Plan(10, learning_rate=1e-2, checkpoint_every=4, evaluate_every=4)

    def watch(model, curve):
        assert not model.training
        assert not torch.is_grad_enabled()
        torch.rand(5)  # what it draws must not matter
        return {"steps seen": len(curve.loss), "weight": model.transformer.wpe.weight[0, 0].item()}

    unwatched = _decoder(0.3)
    train(unwatched, _next_token, plan, seed=1)

    def killed(step):
        if step == 6:
            raise KeyboardInterrupt
        return _next_token(step)

    with pytest.raises(KeyboardInterrupt):
        train(_decoder(0.3), killed, plan, seed=1, folder=tmp_path, watch=watch)
    model = _decoder(0.3)
    curve = train(model, _next_token, plan, seed=1, folder=tmp_path, watch=watch)
    assert {step: seen["steps seen"] for step, seen in curve.watched.items()} == {0: 0, 4: 4, 8: 8, 10: 10}
    assert curve.watched[0]["weight"] == _decoder().transformer.wpe.weight[0, 0].item()
    assert curve.watched[10]["weight"] == model.transformer.wpe.weight[0, 0].item()
    assert Curve.read(tmp_path / "curve.json") == curve
    for watched, alone in zip(model.parameters(), unwatched.parameters(), strict=True):
        assert torch.equal(watched, alone)


def test_a_run_that_nobody_watches_is_written_as_before_there_were_watchers(tmp_path):
    train(_decoder(), _next_token, Plan(steps=2, learning_rate=1e-3), seed=0, folder=tmp_path)
    assert set(json.loads((tmp_path / "curve.json").read_text())) == {"loss", "gradient_norm", "tokens", "held_out"}
    assert "watched" not in (tmp_path / "checkpoint/state.json").read_text()
