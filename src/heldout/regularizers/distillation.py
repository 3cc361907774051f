"""Distillation: learn from the averaged predictions of other models, not from the text alone.

The loss of a scored token is ``(1 - weight)`` times its cross-entropy plus ``weight`` times
KL(teachers || model), where the teachers' distribution is the mean of their probabilities, as in
an ensemble. What the teachers hold possible beside the true token is told at every token, so that
one model can keep much of what averaging several of them gains (Kim et al. 2025, arXiv 2509.14786;
Allen-Zhu and Li 2023, arXiv 2012.09816, on why). ``temperature`` above 1 flattens both sides
before they are compared; the divergence is then multiplied by its square, so that the gradients
keep their size.

Teachers predict without dropout and without gradient, on the very batch that the model sees. They
must have its vocabulary. Terms that other regularizers add to the cross-entropy stay whole.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Cost, Regularizer, TokenSum
from heldout.lm.flat_trial import reason_for_padding
from heldout.lm.head import unwrapped
from heldout.lm.linear_joint_loss import linear_joint_loss
from heldout.lm.load import load_model, load_tokenizer
from heldout.lm.logit_path import logit_path
from heldout.lm.passes import Passes, ScoredPass
from heldout.lm.undisturbed import evaluation_mode

# N scored tokens, V vocabulary

SOURCE = "Hinton, Vinyals and Dean 2015, arXiv 1503.02531"
COST = "one more forward of each teacher; all weights of every teacher"


def mixture_log_probs(logits: Sequence[torch.Tensor], temperature: float = 1.0) -> torch.Tensor:
    """Log of the mean of the teachers' probabilities (N, V), each at that temperature."""
    each_KNV = torch.stack([(one / temperature).log_softmax(-1) for one in logits])
    return each_KNV.logsumexp(0) - math.log(len(logits))


def teacher_log_probs(
    teachers: Sequence[torch.nn.Module], batch: Mapping[str, Any], *, temperature: float = 1.0
) -> torch.Tensor:
    """What the teachers together predict at the scored positions of a batch, (N, V), held whole.

    ``batch``: the model's arguments with ``labels`` (B, T), unshifted, -100 where not scored; the
    positions come row by row. For a loop of one's own, with ``distillation_nats``.
    """
    logits = [teacher_pass(teacher, batch).logits() for teacher in teachers]
    return mixture_log_probs(logits, temperature)


def distillation_nats(
    logits_NV: torch.Tensor,
    teacher_log_NV: torch.Tensor,
    targets_N: torch.Tensor,
    *,
    weight: float,
    temperature: float = 1.0,
) -> torch.Tensor:
    """The whole loss (N,) of each token: cross-entropy and divergence, mixed by ``weight``.

    ``teacher_log_NV`` are log-probabilities at that temperature already.
    """
    nats_N = torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="none")
    return nats_N + weight * _excess(logits_NV, teacher_log_NV, nats_N, temperature)


def distillation_term(
    task: ScoredPass, teachers: Sequence[ScoredPass], weight: float, temperature: float = 1.0
) -> torch.Tensor:
    """What distillation adds to the cross-entropy, summed over scored tokens, in nats.

    ``weight`` times (divergence minus cross-entropy), block by block: never the whole logits where
    all heads are linear.
    """

    def loss(logits: list[torch.Tensor], targets_N: torch.Tensor) -> torch.Tensor:
        nats_N = torch.nn.functional.cross_entropy(logits[0], targets_N, reduction="none")
        teacher_log_NV = mixture_log_probs(logits[1:], temperature)
        return weight * _excess(logits[0], teacher_log_NV, nats_N, temperature)

    passes = [task, *(teacher.detached() for teacher in teachers)]
    if any(each.logits_NV is not None for each in passes):
        return loss([each.logits() for each in passes], task.targets_N).sum()
    with task.precision():
        return linear_joint_loss([each.head() for each in passes], task.targets_N, loss)


def teacher_pass(teacher: torch.nn.Module, batch: Mapping[str, Any]) -> ScoredPass:
    """One teacher's pass over a batch, without dropout and gradient; its modes are restored."""
    with torch.no_grad(), evaluation_mode(teacher):
        return Passes(teacher, batch).task


def _excess(
    logits_NV: torch.Tensor,
    teacher_log_NV: torch.Tensor,
    nats_N: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Divergence, times the square of the temperature, minus cross-entropy."""
    log_NV = (logits_NV / temperature).log_softmax(-1)
    divergence_N = (teacher_log_NV.exp() * (teacher_log_NV - log_NV)).sum(-1)
    return temperature**2 * divergence_N - nats_N


@dataclass(frozen=True)
class Distillation(Regularizer):
    """``teachers``: model folders; ``weight`` of their distribution, 1 for nothing but it.

    ``trust_remote_code`` runs code that lies in the teachers' folders.
    """

    STRENGTH = "weight"

    teachers: tuple[str, ...] = ()
    weight: float = 0.5
    temperature: float = 1.0
    trust_remote_code: bool = False

    _loaded: list = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [self.teachers] if isinstance(self.teachers, str) else self.teachers
        if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
            raise UserError(
                f"Distillation(teachers=...) must be a list of model folders, got {given!r}."
            )
        object.__setattr__(self, "teachers", tuple(given))
        self.require("weight", 0 <= self.weight <= 1, "0 to 1")
        self.require("temperature", self.temperature > 0, "above 0")

    @property
    def cost(self) -> Cost:
        return Cost(forwards=len(self.teachers), base=len(self.teachers))

    def check(self, model: Any, recipe: Recipe | None) -> None:
        if not self.teachers:
            raise UserError(
                "Distillation(teachers=...) names no model to learn from: give model folders, as "
                'teachers=["a/best", "b/best"], or use heldout distill.'
            )
        self._load(model)

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Refuse teachers whose tokens mean something else than the model's."""
        for name in self.teachers:
            theirs = load_tokenizer(name, trust_remote_code=self.trust_remote_code)
            if theirs.get_vocab() != tokenizer.get_vocab():
                raise UserError(
                    f"Distillation(teachers=...): {name} has another tokenizer than the model: "
                    "teachers must read and predict the same tokens."
                )

    def prepare(self, model: Any) -> None:
        self._load(model)

    def before_step(self, model: Any, step: int) -> None:
        device = next(model.parameters()).device
        for teacher in self._loaded:
            teacher.to(device)

    def extra_loss(self, passes: Passes, batch: Mapping[str, Any]) -> TokenSum:
        if self.strength == 0:
            return passes.nothing()
        teachers = [teacher_pass(teacher, batch) for teacher in self._loaded]
        term = distillation_term(passes.task, teachers, self.strength, self.temperature)
        return TokenSum(term)

    def _load(self, model: Any) -> None:
        if self._loaded:
            return
        first = next(model.parameters())
        size = _vocabulary(model)
        found = []
        for name in self.teachers:
            teacher = load_model(
                name,
                device=first.device,
                dtype=first.dtype,
                trust_remote_code=self.trust_remote_code,
            ).model
            if _vocabulary(teacher) != size:
                raise UserError(
                    f"Distillation(teachers=...): {name} predicts {_vocabulary(teacher)} tokens, "
                    f"the model {size}: teachers must have its tokenizer and vocabulary."
                )
            logit_path(teacher)  # its trials are not a part of a step
            reason_for_padding(teacher)
            found.append(teacher.requires_grad_(False))
        self._loaded.extend(found)


def _vocabulary(model: Any) -> int:
    return unwrapped(model).config.get_text_config().vocab_size
