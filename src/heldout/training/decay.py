"""Decoupled weight decay under any optimizer: a decayed weight loses ``rate`` of the learning rate.

Optimizers read ``weight_decay`` in many ways: as a factor of the weight, as a part of the gradient
that is then rescaled, not at all. So each is asked, with a weight of 1 and a gradient of 0, before
the first step; where it does not do what WeightDecay says, its own decay is switched off and the
weights are multiplied here.
"""

from collections import defaultdict
from typing import Any

import torch

from heldout.core.errors import UserError
from heldout.training.two_forms import keeps_two_forms

DECAY = "heldout_weight_decay"  # of a parameter group, in place of the optimizer's own
_SHARE, _STEPS = 2e-3, 24  # taken away a step; enough steps for warm-ups and slow copies to show
_TOLERANCE = 0.01  # of what decay takes away


def set_decay(optimizer: Any) -> None:
    """See that ``weight_decay`` of every group multiplies weights by ``1 - rate * decay`` a step.

    Raises UserError, naming the optimizer, where that cannot be had.
    """
    if not any(group.get("weight_decay") for group in optimizer.param_groups):
        return
    if decays_as_said(optimizer):
        return
    for group in optimizer.param_groups:
        group[DECAY] = group.get("weight_decay", 0.0)
        group["weight_decay"] = 0.0
    if hasattr(optimizer, "register_step_pre_hook"):
        optimizer.register_step_pre_hook(_decay)
    if not decays_as_said(optimizer):
        raise UserError(_refusal(optimizer))


def refuse_own_decay(optimizer: Any) -> None:
    """UserError where ``weight_decay`` of a group is something else than decoupled decay."""
    decays = any(group.get("weight_decay") for group in optimizer.param_groups)
    if decays and not decays_as_said(optimizer):
        raise UserError(_refusal(optimizer))


def decays_as_said(optimizer: Any) -> bool:
    """Whether a weight without a gradient is multiplied by ``1 - rate * decay`` at each step.

    Asked of an optimizer of the same class and settings with one weight of its own in each group.
    """
    expected = 1 - (1 - _SHARE) ** _STEPS
    try:
        found = _shrunk(optimizer)
    except Exception:  # whatever strangers' code raises on small weights and new groups
        return False
    # Not so either if it is not a number.
    return all(abs(share - expected) <= _TOLERANCE * expected for share in found)


def _shrunk(optimizer: Any) -> list[float]:
    """What a weight of 1 loses in the probed steps, in the form that is measured and saved."""
    key = DECAY if any(DECAY in group for group in optimizer.param_groups) else "weight_decay"
    twin: Any = object.__new__(type(optimizer))
    twin.__dict__.update(optimizer.__dict__)
    twin.state = defaultdict(dict)
    twin.param_groups = []
    for group in optimizer.param_groups:
        device = group["params"][0].device if group["params"] else "cpu"
        weight = torch.nn.Parameter(torch.ones(4, 4, device=device))
        probed = {**group, "params": [weight], key: _SHARE / float(group["lr"])}
        if "warmup_steps" in group:
            probed["warmup_steps"] = 0
        twin.param_groups.append(probed)
    weights = [group["params"][0] for group in twin.param_groups]
    if keeps_two_forms(twin):
        twin.train()
    for _ in range(_STEPS):
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        type(twin).step(twin)  # not what a scheduler may have put in its place
    if keeps_two_forms(twin):
        twin.eval()
    return [1 - float(weight.detach().mean()) for weight in weights]


@torch.no_grad()
def _decay(optimizer: Any, args: Any, kwargs: Any) -> None:
    """Before a step, as AdamW does it: weights that have a gradient, in all forms that are kept."""
    for group in optimizer.param_groups:
        factor = 1 - _rate(group) * group.get(DECAY, 0.0)
        weights = [p for p in group["params"] if p.grad is not None]
        if factor == 1 or not weights:
            continue
        torch._foreach_mul_(weights, factor)
        if keeps_two_forms(optimizer):
            # The measured form lies on the line between the two.
            kept = [optimizer.state[p]["z"] for p in weights if "z" in optimizer.state[p]]
            if kept:
                torch._foreach_mul_(kept, factor)


def _rate(group: dict[str, Any]) -> float:
    """The learning rate of the coming step; schedule-free warms up by itself."""
    steps, warmup = group.get("k", 0), group.get("warmup_steps", 0)
    share = (steps + 1) / warmup if steps < warmup else 1.0
    return float(group["lr"]) * share


def _refusal(optimizer: Any) -> str:
    name = type(optimizer).__name__
    return (
        f"WeightDecay says how much of a weight each step takes away, and {name} does something "
        "else with it: use adamw_torch, or leave WeightDecay out."
    )
