"""The training loop: one function, any transformers language model, the same bytes after a kill as without."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from accelerate import Accelerator
from safetensors.torch import save_model
from torch import nn
from tqdm import tqdm

from . import checkpoint
from .batches import IGNORED, Batch
from .diagnosis import not_finite_in


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train. All counts are optimizer steps."""

    steps: int
    learning_rate: float
    warmup: int = 0
    hold: int = 0
    final_fraction: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    optimizer: Literal["adamw", "muon"] = "adamw"
    adamw: tuple[str, ...] = ()  # endings of the names of matrices that stay with AdamW under "muon"
    evaluate_every: int = 0
    checkpoint_every: int = 0
    keep: tuple[int, ...] = ()


@dataclass
class Curve:
    """What happened: a number per step, and the held-out loss at the steps where it was measured. Nats per token.

    `watched` holds what a watcher of the run reported, by step.
    """

    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    tokens: int = 0
    held_out: dict[int, float] = field(default_factory=dict)
    watched: dict[int, dict[str, float]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the curve as JSON."""
        path.write_text(json.dumps(self._plain(), sort_keys=True))

    @classmethod
    def read(cls, path: Path) -> Curve:
        """Read a curve that `save` wrote."""
        return cls._from(json.loads(path.read_text()))

    def _plain(self) -> dict[str, Any]:
        # A run that nobody watches is written as it was before there were watchers.
        return {name: value for name, value in asdict(self).items() if name != "watched" or value}

    @classmethod
    def _from(cls, fields: dict[str, Any]) -> Curve:
        # JSON makes every key a string.
        by_step = {
            name: {int(step): value for step, value in fields.get(name, {}).items()} for name in ("held_out", "watched")
        }
        return cls(**{**fields, **by_step})


Watcher: TypeAlias = Callable[[nn.Module, Curve], Mapping[str, float]]
"""Looks at the model while it is trained, and at the curve so far; what it returns is kept in the curve."""


def learning_rate(step: int, plan: Plan) -> float:
    """The rate for a step from zero: a straight rise over `warmup`, the peak over `hold`, then half a cosine.

    Loshchilov & Hutter 2017; with a hold the first part of a run is the same however long the whole is to be.
    """
    if step < plan.warmup:
        return plan.learning_rate * (step + 1) / plan.warmup
    start = plan.warmup + plan.hold
    along = max(0, step - start) / max(1, plan.steps - start)
    floor = plan.final_fraction
    return plan.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * along)))


def train(
    model: nn.Module,
    batch: Callable[[int], Batch],
    plan: Plan,
    *,
    seed: int,
    folder: Path | None = None,
    held_out: Sequence[Batch] = (),
    watch: Watcher | None = None,
    progress: bool = True,
) -> Curve:
    """Train `model` in place on ``batch(step)`` for every step of the plan; the loss curve.

    `batch` must depend on nothing but its step: then a run that was killed and started again with the same `folder`
    ends in the same bytes as one that was not. Under `torchrun` each process takes its share of the rows, and loss and
    gradient stay means over all labels of the batch.
    `watch` is called, with dropout off, before the first step, every `plan.evaluate_every` steps and at the end.
    Raises FloatingPointError at the first loss or gradient that is not finite, naming the step and the layer.
    """
    # Unless told that there is only the CPU, accelerate takes each of several processes for the only one.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    optimizers = _optimizers(model, plan)
    wrapped, *steppers = accelerator.prepare(model, *optimizers)
    state = {"plan": json.loads(json.dumps(asdict(plan))), "seed": seed}
    curve, first = Curve(), 0
    if folder is not None and (found := checkpoint.read_state(folder)) is not None:
        _refuse_other_run(found, state, folder)
        checkpoint.restore(folder, accelerator.unwrap_model(wrapped), optimizers)
        curve, first = Curve._from(found["curve"]), int(found["step"])

    was_training = model.training
    wrapped.train()
    hidden = not (progress and accelerator.is_main_process)
    bar = tqdm(range(first, plan.steps), initial=first, total=plan.steps, disable=hidden)
    for step in bar:
        if step == 0:
            _keep(folder, accelerator, wrapped, step=0, plan=plan)
            _watch(watch, accelerator, wrapped, step=0, curve=curve)
        given = batch(step)
        curve.tokens += given["input_ids"].numel()
        for group in (group for stepper in steppers for group in stepper.param_groups):
            group["lr"] = learning_rate(step, plan)
        loss, norm = _step(accelerator, wrapped, steppers, given=given, plan=plan, seed=seed + step)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            bare = accelerator.unwrap_model(wrapped)
            where = not_finite_in(bare, given, precision=plan.precision, seed=seed + step)
            raise FloatingPointError(
                f"Training broke at step {step} of {plan.steps}: loss {loss}, gradient norm {norm}; first not finite: "
                f"{where}. The last checkpoint is from before. Lower the learning rate "
                f"({learning_rate(step, plan):.2g}) or look at batch({step})."
            )
        curve.loss.append(loss)
        curve.gradient_norm.append(norm)
        done = step + 1
        due = done == plan.steps or (plan.evaluate_every > 0 and done % plan.evaluate_every == 0)
        if held_out and due:
            curve.held_out[done] = held_out_loss(wrapped, held_out, precision=plan.precision)
            bar.set_postfix(loss=f"{loss:.3f}", held_out=f"{curve.held_out[done]:.3f}")
        if due:
            _watch(watch, accelerator, wrapped, step=done, curve=curve)
        _keep(folder, accelerator, wrapped, step=done, plan=plan)
        if folder is not None and (done == plan.steps or (plan.checkpoint_every and done % plan.checkpoint_every == 0)):
            if accelerator.is_main_process:
                whole = {**state, "step": done, "curve": curve._plain()}
                checkpoint.save(folder, accelerator.unwrap_model(wrapped), optimizers, state=whole)
                curve.save(folder / "curve.json")
            accelerator.wait_for_everyone()
    model.train(was_training)
    return curve


@torch.no_grad()
def held_out_loss(model: nn.Module, batches: Sequence[Batch], *, precision: str = "float32") -> float:
    """Mean loss over every predicted token of the batches, in nats, with dropout off."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for given in batches:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(**{name: value.to(device) for name, value in given.items()}).loss
        n = _asked(given)
        total, count = total + loss.item() * n, count + n
    model.train(was_training)
    return total / count


def _asked(given: Batch) -> int:
    """How many tokens are predicted. A decoder predicts nothing for a row's first, and an encoder's first is [CLS]."""
    return int((given["labels"][:, 1:] != IGNORED).sum())


def _step(
    accelerator: Accelerator, model: nn.Module, optimizers: list[Any], *, given: Batch, plan: Plan, seed: int
) -> tuple[float, float]:
    """One optimizer step; the loss over all processes and the gradient norm before clipping."""
    rank, world = accelerator.process_index, accelerator.num_processes
    if len(given["input_ids"]) < world:
        raise ValueError(f"{len(given['input_ids'])} rows a step cannot be shared by {world} processes; give more rows")
    mine = {name: value[rank::world].to(accelerator.device) for name, value in given.items()}
    # Dropout draws from the step's own seed, so a resumed run needs no saved random state.
    with torch.random.fork_rng():
        torch.manual_seed(seed + rank * plan.steps)
        with torch.autocast(accelerator.device.type, dtype=torch.bfloat16, enabled=plan.precision == "bfloat16"):
            loss = model(**mine).loss
        if world > 1:  # gradients are averaged, but each process's loss is a mean over labels of its own number
            loss = loss * (world * _asked(mine) / _asked(given))
        accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(model.parameters(), plan.clip)
    mean_loss = accelerator.reduce(loss.detach().float(), reduction="mean").item()
    for optimizer in optimizers:
        if math.isfinite(mean_loss) and math.isfinite(float(norm)):
            optimizer.step()
        optimizer.zero_grad()
    return mean_loss, float(norm)


def _optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """AdamW that decays matrices only (Loshchilov & Hutter 2019), as biases and norms have no direction to forget.

    With "muon" the matrices that are no embeddings go to Muon (Jordan 2024) instead, scaled to AdamW's step length;
    but not those that `plan.adamw` names. Queries, keys and values that lie side by side in one matrix belong there:
    the values' gradient is many times larger at first, and orthogonalised as one the other two would hardly move.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    trained = [p for p in model.parameters() if p.requires_grad]
    hidden = [
        p
        for name, p in model.named_parameters()
        if plan.optimizer == "muon" and p.requires_grad and p.ndim == 2
        if id(p) not in tables and not name.endswith(plan.adamw)
    ]
    taken = {id(p) for p in hidden}
    decayed = [p for p in trained if p.ndim >= 2 and id(p) not in taken]
    vectors = [p for p in trained if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.95), fused=True)
    ]
    if hidden:
        found.append(
            torch.optim.Muon(
                hidden, lr=plan.learning_rate, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw"
            )
        )
    return found


def _watch(watch: Watcher | None, accelerator: Accelerator, model: nn.Module, *, step: int, curve: Curve) -> None:
    """Let the watcher look at the model as it is used, not as it is trained; its random draws change nothing here."""
    if watch is not None and accelerator.is_main_process:
        bare = accelerator.unwrap_model(model)
        with torch.random.fork_rng(), torch.no_grad():
            curve.watched[step] = dict(watch(bare.eval(), curve))
        bare.train()


def _keep(folder: Path | None, accelerator: Accelerator, model: nn.Module, *, step: int, plan: Plan) -> None:
    """Write the weights of a step that the plan wants kept, for a look at how they came to be."""
    if folder is not None and step in plan.keep and accelerator.is_main_process:
        (folder / "kept").mkdir(parents=True, exist_ok=True)
        save_model(accelerator.unwrap_model(model), str(folder / "kept" / f"{step:06d}.safetensors"))


def _refuse_other_run(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    different = [name for name in wanted if found.get(name) != wanted[name]]
    if different:
        raise ValueError(
            f"{folder} holds a checkpoint of another run: {', '.join(different)} differ. "
            "Give a new folder, or delete this one to start anew."
        )
