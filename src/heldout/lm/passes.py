"""Passes of one micro-batch through the model, which regularizers share and compare.

Hidden states of the scored positions are kept, not logits: losses and divergences are computed
chunk by chunk by ``linear_cross_entropy`` and ``linear_joint_loss``.
"""

# B batch, T tokens, N scored tokens, V vocabulary, D width

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor, Partial
from torch.nn.parallel import DistributedDataParallel

from heldout.core.regularizer import TokenLoss, TokenSum
from heldout.lm.adapters import base_weights
from heldout.lm.flat_trial import lays_flat
from heldout.lm.head import call_with_head, scored, unwrapped
from heldout.lm.layout import current_layout, laid_out
from heldout.lm.linear_cross_entropy import linear_cross_entropy
from heldout.lm.linear_joint_loss import Head, linear_joint_loss
from heldout.lm.logit_path import LogitPath, logit_path
from heldout.lm.scored_loss import scored_logits
from heldout.lm.undisturbed import evaluation_mode, random_state, replayed
from heldout.lm.weights import global_norm, weights_replaced


@dataclass(frozen=True)
class ScoredPass:
    """What one pass predicts at the scored positions of a batch, in the batch's order."""

    targets_N: torch.Tensor
    logits_NV: torch.Tensor | None  # only where the head is more than a linear layer
    hidden_ND: torch.Tensor | None  # where the head sees them by single positions
    weight_VD: torch.Tensor | None  # of a linear head
    bias_V: torch.Tensor | None
    autocast: torch.dtype | None  # the type under which the head's product is taken

    def cross_entropy(self, token_loss: Sequence[TokenLoss] = ()) -> torch.Tensor:
        """Summed over tokens, in nats, plus the terms of ``token_loss``."""
        if self.logits_NV is not None:
            loss = F.cross_entropy(self.logits_NV, self.targets_N, reduction="sum")
            for term in token_loss:
                loss = loss + term(self.logits_NV, self.targets_N).sum()
            return loss
        hidden_ND, weight_VD, bias_V = self.head()
        with self.precision():
            loss, _ = linear_cross_entropy(
                hidden_ND, weight_VD, self.targets_N, bias_V, token_loss=token_loss
            )
        return loss

    def logits(self) -> torch.Tensor:
        """Float32 logits (N, V), held whole: for terms that no chunked function computes."""
        if self.logits_NV is not None:
            return self.logits_NV
        with self.precision():
            return F.linear(*self.head()).float()

    def head(self) -> Head:
        """Hidden states, weight and bias, where the head is linear."""
        assert self.hidden_ND is not None
        assert self.weight_VD is not None
        return self.hidden_ND, self.weight_VD, self.bias_V

    def detached(self) -> "ScoredPass":
        """The same numbers, through which no gradient flows."""
        return self._detached("logits_NV", "hidden_ND", "weight_VD", "bias_V")

    def head_detached(self) -> "ScoredPass":
        """The same, without the gradient of the head's weight, which is as large as that is."""
        return self._detached("weight_VD", "bias_V")

    def _detached(self, *names: str) -> "ScoredPass":
        held = {name: getattr(self, name) for name in names}
        changes: Any = {name: None if v is None else v.detach() for name, v in held.items()}
        return replace(self, **changes)

    def precision(self) -> AbstractContextManager[Any]:
        """A context in which products are taken as the model's own head takes them."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.targets_N.device.type, self.autocast)


Kind = Literal["forward", "reverse", "symmetric"]


@dataclass(frozen=True)
class DivergenceLoss:
    """An added loss: how far another pass is from the task's, per scored token.

    ``forward`` is KL(task || other), ``reverse`` KL(other || task), ``symmetric`` their sum, each
    times ``weight``. The gradient to the task's pass is left out with ``task_fixed``. The share
    ``cross_entropy`` of the task loss is taken from the other pass, with all its terms. Computed
    together with the task loss: the task's logits are not computed again.
    """

    other: ScoredPass
    kind: Kind
    weight: float
    cross_entropy: float = 0.0
    task_fixed: bool = False


def joint_loss(
    task: ScoredPass, compared: Sequence[DivergenceLoss], token_loss: Sequence[TokenLoss] = ()
) -> torch.Tensor:
    """The task loss with all comparisons added, summed over scored tokens, in nats."""

    def loss(logits: list[torch.Tensor], targets_N: torch.Tensor) -> torch.Tensor:
        nats_N, task_log_NV = _token_nats(logits[0], targets_N, token_loss)
        nats_N = nats_N * (1 - sum(one.cross_entropy for one in compared))
        for one, other_NV in zip(compared, logits[1:], strict=True):
            if one.cross_entropy:
                other_N, other_log_NV = _token_nats(other_NV, targets_N, token_loss)
                nats_N = nats_N + one.cross_entropy * other_N
            else:
                other_log_NV = other_NV.log_softmax(-1)
            reference_NV = task_log_NV.detach() if one.task_fixed else task_log_NV
            nats_N = nats_N + one.weight * _divergence(reference_NV, other_log_NV, one.kind)
        return nats_N

    passes = [task, *(one.other for one in compared)]
    if any(each.logits_NV is not None for each in passes):
        return loss([each.logits() for each in passes], task.targets_N).sum()
    with task.precision():
        return linear_joint_loss([each.head() for each in passes], task.targets_N, loss)


def divergence(p: ScoredPass, q: ScoredPass, kind: Kind = "symmetric") -> torch.Tensor:
    """KL(p || q), its reverse KL(q || p), or their sum, over scored tokens, in nats.

    Gradients flow to both unless detached. Never holds the full logits with a linear head.
    """

    def loss(logits: list[torch.Tensor], targets_N: torch.Tensor) -> torch.Tensor:
        return _divergence(logits[0].log_softmax(-1), logits[1].log_softmax(-1), kind)

    if p.logits_NV is not None or q.logits_NV is not None:
        return loss([p.logits(), q.logits()], p.targets_N).sum()
    with p.precision():
        return linear_joint_loss([p.head(), q.head()], p.targets_N, loss)


def divergence_gradient(passes: "Passes", offset_BTD: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Gradient, to an offset of the embeddings, of the divergence from the task's own pass.

    One forward with the task's dropout masks and one backward, to the offset alone.
    """
    offset_BTD = offset_BTD.detach().requires_grad_()
    moved = passes.again(embedding_offset=offset_BTD, same_dropout=True).head_detached()
    return torch.autograd.grad(divergence(passes.task.detached(), moved, kind), offset_BTD)[0]


def _token_nats(
    logits_NV: torch.Tensor, targets_N: torch.Tensor, token_loss: Sequence[TokenLoss]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of each token with all its terms, and the log-probabilities."""
    log_NV = logits_NV.log_softmax(-1)
    nats_N = -log_NV.gather(1, targets_N[:, None]).squeeze(1)
    for term in token_loss:
        nats_N = nats_N + term(logits_NV, targets_N)
    return nats_N, log_NV


def _divergence(p_log_NV: torch.Tensor, q_log_NV: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Per token, from log-probabilities."""
    ratio_NV = p_log_NV - q_log_NV
    if kind == "forward":
        return (p_log_NV.exp() * ratio_NV).sum(-1)
    if kind == "reverse":
        return -(q_log_NV.exp() * ratio_NV).sum(-1)
    return ((p_log_NV.exp() - q_log_NV.exp()) * ratio_NV).sum(-1)


class Passes:
    """The task's own pass and further ones over the same micro-batch."""

    def __init__(self, model: nn.Module, batch: Mapping[str, Any]):
        self.model = model
        self.batch = batch
        self._random_state = random_state(batch["input_ids"].device)
        self._head: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self.task = self._run()

    @property
    def width(self) -> int:
        """Width of the input embedding."""
        return unwrapped(self.model).get_input_embeddings().embedding_dim

    def again(
        self,
        *,
        embedding_offset: torch.Tensor | None = None,
        weights: Mapping[str, torch.Tensor] | None = None,
        same_dropout: bool = False,
    ) -> ScoredPass:
        """Run the model again: other dropout masks, unless ``same_dropout``.

        ``embedding_offset`` (B, T, D) is added to the embedded tokens. ``weights`` stand in for
        the trained parameters of these names; such a pass takes no gradient.
        """
        with ExitStack() as stack:
            if same_dropout:
                stack.enter_context(replayed(self._random_state))
            if embedding_offset is not None:
                stack.enter_context(embeddings_offset(self.model, embedding_offset))
            if weights is not None:
                stack.enter_context(torch.no_grad())
                stack.enter_context(weights_replaced(self.model, weights))
            return self._run()

    def nothing(self) -> TokenSum:
        """An added loss of 0, for a term that is off: costs no further pass."""
        return TokenSum(self.task.targets_N.new_zeros((), dtype=torch.float32))

    def of_base(self, anchors: Mapping[str, torch.Tensor]) -> ScoredPass:
        """What the base predicts, without dropout and gradient; ``anchors`` as in base_weights."""
        with torch.no_grad(), evaluation_mode(self.model), base_weights(self.model, anchors):
            return self._run()

    def _run(self) -> ScoredPass:
        path = logit_path(self.model)
        if path is LogitPath.WHOLE:
            logits_NV, targets_N = scored_logits(self.model, self.batch)
            return ScoredPass(targets_N, logits_NV, None, None, None, None)
        found: dict[str, Any] = {}

        def compute(head: Any, hidden_BTD: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
            hidden_ND, found["targets"] = scored(hidden_BTD, labels_BT)
            found["hidden"] = hidden_ND
            device = hidden_ND.device.type
            if torch.is_autocast_enabled(device):
                found["autocast"] = torch.get_autocast_dtype(device)
            if path is not LogitPath.FUSED:
                return head(hidden_ND[None])
            if isinstance(self.model, DistributedDataParallel):
                hidden_ND = _Linked.apply(hidden_ND, head.weight, head.bias)
            return hidden_ND[None]

        flat = lays_flat(self.model, self.batch)
        output = call_with_head(self.model, self.batch, compute, flat=flat)[0]
        targets_N, autocast = found["targets"], found.get("autocast")
        if path is LogitPath.SCORED:
            return ScoredPass(targets_N, output.float(), found["hidden"], None, None, autocast)
        head = unwrapped(self.model).get_output_embeddings()
        if torch.is_grad_enabled():
            # One whole weight for all passes, so that a sharded one has one gradient.
            self._head = self._head or (_gathered(head.weight), _gathered(head.bias))
            weight, bias = self._head
        else:
            # Detached, it keeps the numbers of this pass when replaced weights are put back.
            weight, bias = _gathered(head.weight).detach(), _gathered(head.bias)
            bias = None if bias is None else bias.detach()
        return ScoredPass(targets_N, None, output, weight, bias, autocast)


class _Linked(torch.autograd.Function):
    """Hidden states as they are, which for DDP depend on the head that they are scored with later.

    What no output of its forward depends on, DDP may take for unused, and hands over at once.
    """

    @staticmethod
    def forward(ctx: Any, hidden_ND: torch.Tensor, *parameters: torch.Tensor | None) -> Any:
        ctx.num = len(parameters)
        return hidden_ND.view_as(hidden_ND)

    @staticmethod
    def backward(ctx: Any, gradient_ND: torch.Tensor) -> Any:
        return gradient_ND, *[None] * ctx.num


def embedding_scale(model: nn.Module) -> float:
    """Root mean square of the numbers of the input embedding, as they enter the model.

    The unit for perturbations of embedded tokens, whose scale differs between models.
    """
    embedding = unwrapped(model).get_input_embeddings()
    weight_VD = embedding.weight.detach()
    scale = global_norm([weight_VD]) / weight_VD.numel() ** 0.5
    return float(scale * getattr(embedding, "embed_scale", 1.0))


@contextmanager
def embeddings_offset(model: nn.Module, offset_BTD: torch.Tensor) -> Iterator[None]:
    """Within this context ``offset_BTD`` is added to the output of the input embedding.

    It is that of the padded batch, however the model's rows lie.
    """
    embedding = unwrapped(model).get_input_embeddings()

    def moved(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if output.shape == offset_BTD.shape:
            return output + offset_BTD.to(output.dtype)
        return output + laid_out(offset_BTD, current_layout()).to(output.dtype)

    handle = embedding.register_forward_hook(moved)
    try:
        yield
    finally:
        handle.remove()


def _gathered(weight: torch.Tensor | None) -> Any:
    """A sharded weight unsharded, so that its gradient is the mean over processes, as FSDP's is."""
    if isinstance(weight, DTensor):
        return weight.full_tensor(grad_placements=[Partial("avg")] * weight.device_mesh.ndim)
    return weight
