"""Optimizer steps with regularizers: what any training loop calls, ``attach`` and a loop by hand.

Knows no trainer. The hooks of ``heldout.core.regularizer`` are called from here, in their order.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import (
    Gradient,
    PerStep,
    Regularizer,
    TokenSum,
    independent,
    overrides_hook,
)
from heldout.lm.adapters import kept_start, put_back_start
from heldout.lm.experts import balancing_losses
from heldout.lm.flat_trial import reason_for_padding
from heldout.lm.logit_path import logit_path
from heldout.lm.passes import DivergenceLoss, Passes, embeddings_offset, joint_loss
from heldout.lm.row_noise import dropout_by_row, noise_of_step
from heldout.lm.scored_loss import scored_loss
from heldout.lm.tokenize import IGNORED
from heldout.lm.weights import whole
from heldout.regularizers.dropout import Dropout
from heldout.regularizers.weight_decay import WeightDecay
from heldout.training.around_gradient import AroundGradient, RunMicroBatch, WindowGradient
from heldout.training.compatible import check_together, refuse_half_precision, refuse_unmeasured
from heldout.training.decay import refuse_own_decay
from heldout.training.two_forms import keeps_two_forms, refuse_two_forms

_ADAPTER_START = "adapter_start"  # beside the states of regularizers, which are classes' names


class Steps:
    """Regularizers at work on one model; the fifteen-line loop of the library guide uses this.

    Raises UserError at once for what is not supported and for what would silently do nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        regularizers: Sequence[Regularizer],
        *,
        total_steps: int = 0,
        recipe: Recipe | None = None,
        evaluates: bool = False,
        own_loss: bool = True,
        seed: int | None = None,
    ):
        """``own_loss`` is False where another loss is trained on, to which nothing is added.

        What is dropped follows from ``seed``, by default that of ``torch.manual_seed``.

        The regularizers are copied, so that one object can serve several runs, unless the caller
        ``evaluates``, who asks the same objects what to do.
        """
        check_together(regularizers)
        if not evaluates:
            regularizers = [independent(regularizer) for regularizer in regularizers]
        for regularizer in regularizers:
            regularizer.check(model, recipe)
            refuse_unmeasured(regularizer, evaluates)
            if regularizer.schedule != "constant" and not total_steps:
                raise UserError(
                    f"{type(regularizer).__name__}(schedule={regularizer.schedule!r}) needs "
                    "Steps(total_steps=...)."
                )
        refuse_half_precision(model, regularizers)
        self.model = model
        self.regularizers = tuple(regularizers)
        self.total_steps = total_steps
        self.step = 0
        self.seed = seed
        self._noise_seed: int | None = None  # while attached, if dropout goes by rows
        self._has_asked = False
        self.token_losses = self._users("token_loss")
        self.extra_losses = self._users("extra_loss")
        self.around = sorted(self._users("around_gradient"), key=lambda r: r.AROUND)
        for regularizer in regularizers:
            regularizer.prepare(model)
        self.drops_by_row = own_loss or self.adds_to_loss or self._has(Dropout)
        if own_loss or self.adds_to_loss:
            # Found now: not under wrappers, hooks or offsets of a step.
            logit_path(model)
            reason_for_padding(model)

    @property
    def adds_to_loss(self) -> bool:
        return bool(self.token_losses or self.extra_losses)

    @property
    def sets_decay(self) -> bool:
        """Whether the optimizer's ``weight_decay`` must do what WeightDecay says."""
        return self._has(WeightDecay)

    def _has(self, kind: type[Regularizer]) -> bool:
        return any(isinstance(regularizer, kind) for regularizer in self.regularizers)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Edits of the model, undone in reverse order; what it drops goes by rows."""
        with ExitStack() as stack:
            if self.drops_by_row:
                stack.enter_context(dropout_by_row())
                self._noise_seed = torch.initial_seed() if self.seed is None else self.seed
                stack.callback(setattr, self, "_noise_seed", None)
            for regularizer in self.regularizers:
                stack.enter_context(regularizer.attached(self.model))
            yield

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """The weights that are measured and saved, such as averages."""
        with evaluation_weights(self.model, self.regularizers):
            yield

    def parameter_groups(self, learning_rate: float, weight_decay: float = 0.0) -> list[dict]:
        """Groups of trained parameters for any torch optimizer."""
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        whole = {"params": [p for _, p in named], "lr": learning_rate, "weight_decay": weight_decay}
        return self.regrouped([whole])

    def regrouped(self, groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Groups split so that parameters with equal options share one."""
        users = self._users("parameter_options")
        if not users:
            return list(groups)
        names = {id(p): name for name, p in self.model.named_parameters()}
        found: dict[tuple, dict[str, Any]] = {}
        for group in groups:
            shared = {key: value for key, value in group.items() if key != "params"}
            for parameter in group["params"]:
                options = {"lr": shared["lr"], "weight_decay": shared.get("weight_decay", 0.0)}
                for regularizer in users:
                    name = names[id(parameter)]
                    options = regularizer.parameter_options(name, parameter, options)
                fresh = {**shared, **options, "params": []}
                kind = tuple((key, repr(fresh[key])) for key in sorted(fresh))
                found.setdefault(kind, fresh)["params"].append(parameter)
        return list(found.values())

    def edited(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A training batch as it leaves the collator, with all ``edit_batch`` applied."""
        for regularizer in self.regularizers:
            batch = regularizer.edit_batch(batch)
        return batch

    def begin(self, step: int) -> None:
        """Before the first micro-batch of optimizer step ``step``, counted from 0."""
        self.step = step
        for regularizer in self.regularizers:
            regularizer.set_progress(step / self.total_steps if self.total_steps else 0.0)
            regularizer.before_step(self.model, step)

    @contextmanager
    def noise(self, model: nn.Module, batch: Mapping[str, Any]) -> Iterator[None]:
        """Within this context a micro-batch is dropped from as its rows are at this step."""
        if self._noise_seed is None:
            yield
            return
        compiled = any("_orig_mod" in module._modules for module in model.modules())
        with noise_of_step(self._noise_seed, self.step, batch, compiled=compiled):
            yield

    def loss(
        self,
        model: nn.Module,
        batch: Mapping[str, Any],
        *,
        num_tokens: Any = None,
        num_micro_batches: int = 1,
        num_processes: int = 1,
    ) -> torch.Tensor:
        """The loss of one micro-batch, with everything added, to be differentiated and summed.

        ``num_tokens`` is the number of scored tokens of the whole window over all processes.
        """
        with self.noise(model, batch), balancing_losses(model) as balancing:
            token_sum, counted, per_step = self._summed(model, batch)
        if balancing:  # that of the task's own pass, which is the first
            per_step = per_step + balancing[0]
        # Gradients are averaged over processes, while the tokens were counted over all.
        # At least 1: a window whose every token is masked adds nothing.
        divisor = torch.as_tensor(counted if num_tokens is None else num_tokens).clamp(min=1)
        loss = token_sum / divisor.to(token_sum.device) * num_processes
        return loss + per_step / num_micro_batches

    def _summed(
        self, model: nn.Module, batch: Mapping[str, Any]
    ) -> tuple[torch.Tensor, int, torch.Tensor | float]:
        """The loss summed over scored tokens, their number, and what counts once a step."""
        terms = [regularizer.token_loss for regularizer in self.token_losses]
        if not self.extra_losses:
            return *scored_loss(model, batch, token_loss=terms), 0.0
        passes = Passes(model, batch)
        extras = [regularizer.extra_loss(passes, batch) for regularizer in self.extra_losses]
        compared = [extra for extra in extras if isinstance(extra, DivergenceLoss)]
        token_sum = joint_loss(passes.task, compared, terms)
        per_step = torch.zeros((), device=token_sum.device)
        for extra in extras:
            if isinstance(extra, TokenSum):
                token_sum = token_sum + extra.value
            elif isinstance(extra, PerStep):
                per_step = per_step + extra.value
            else:
                assert isinstance(extra, DivergenceLoss), extra
        return token_sum, len(passes.task.targets_N), per_step

    def gradient(self, window: Sequence[dict[str, Any]], model: nn.Module | None = None) -> float:
        """Fill ``parameter.grad`` for one step over the micro-batches of ``window``.

        ``model`` is the wrapped one (DDP, compile) where there is a wrapper; with
        ``torch.distributed`` running, tokens are counted over all processes. Returns the loss of
        this process's micro-batches, a number whose sum over processes is the whole.
        """
        called = self.model if model is None else model
        called.train()
        window = [self.edited(dict(batch)) for batch in window]
        self.begin(self.step)
        device = window[0]["input_ids"].device
        num_tokens = sum((batch["labels"][:, 1:] != IGNORED).sum() for batch in window)
        num_processes = 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            num_processes = torch.distributed.get_world_size()
            torch.distributed.all_reduce(num_tokens)

        def run(index: int, factor: float, offset: torch.Tensor | None) -> torch.Tensor:
            with ExitStack() as stack:
                if index < len(window) - 1:
                    stack.enter_context(_not_synchronized(called))
                if offset is not None:
                    stack.enter_context(embeddings_offset(called, offset))
                loss = self.loss(
                    called,
                    window[index],
                    num_tokens=num_tokens,
                    num_micro_batches=len(window),
                    num_processes=num_processes,
                )
                if not loss.requires_grad:
                    raise UserError(
                        f"The loss of {type(self.model).__name__} has no gradient to any trained "
                        "parameter: call model.enable_input_require_grads(), or train all weights."
                    )
                (factor * loss).backward()
            return loss.detach() * factor

        return float(self.around_window(window, run, device)) / num_processes

    def around_window(
        self, window: Sequence[Mapping[str, Any]], run: RunMicroBatch, device: torch.device
    ) -> torch.Tensor:
        """The gradient of a window with every ``around_gradient`` around it; returns the loss."""
        gradient: Gradient = WindowGradient(window, run, device)
        for regularizer in self.around:
            gradient = AroundGradient(regularizer, self.model, gradient, self.step)
        return gradient()

    def done(self, optimizer: torch.optim.Optimizer) -> None:
        """After the optimizer's step; UserError at the first, if it decays as nobody has said."""
        if not self._has_asked:
            if keeps_two_forms(optimizer):
                refuse_two_forms(type(optimizer).__name__, self.regularizers)
            if self.sets_decay:
                refuse_own_decay(optimizer)
            self._has_asked = True
        self.after_step(optimizer)
        self.step += 1

    def after_step(self, optimizer: Any) -> None:
        users = sorted(self._users("after_step"), key=lambda r: r.AFTER)
        if not users:
            return
        by_identity = {
            id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]
        }
        rates = {
            name: by_identity[id(p)]
            for name, p in self.model.named_parameters()
            if id(p) in by_identity
        }
        for regularizer in users:
            regularizer.after_step(self.model, self.step, rates)

    def state_dict(self) -> dict[str, Any]:
        """The states of those that may keep one, by class name; every process must call it."""
        states = {type(r).__name__: r.state_dict() for r in self._users("state_dict")}
        if start := kept_start(self.model):
            states[_ADAPTER_START] = whole(start)
        return states

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        load_states(self.model, self.regularizers, states)

    def _users(self, hook: str) -> list[Any]:
        return [r for r in self.regularizers if overrides_hook(r, hook)]


@contextmanager
def evaluation_weights(model: Any, regularizers: Sequence[Regularizer]) -> Iterator[None]:
    """The weights that are measured and saved, under all of ``regularizers``."""
    with ExitStack() as stack:
        for regularizer in regularizers:
            stack.enter_context(regularizer.evaluation_weights(model))
        yield


def load_states(
    model: nn.Module, regularizers: Sequence[Regularizer], states: Mapping[str, Any]
) -> None:
    """Give each its own state, as ``Steps.state_dict`` holds them; UserError if one is missing."""
    if _ADAPTER_START in states:
        put_back_start(model, states[_ADAPTER_START])
    for regularizer in regularizers:
        name = type(regularizer).__name__
        if name in states:
            regularizer.load_state_dict(states[name])
        elif overrides_hook(regularizer, "state_dict"):
            raise UserError(
                f"The checkpoint holds no state of {name}, because it was written without it: "
                "start anew, or resume with the same regularizers."
            )


@contextmanager
def _not_synchronized(model: Any) -> Iterator[None]:
    """Gradients stay on this process: for all micro-batches of a window but its last."""
    if hasattr(model, "set_requires_gradient_sync"):  # FSDP2
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)
    else:
        with model.no_sync() if hasattr(model, "no_sync") else nullcontext():
            yield
