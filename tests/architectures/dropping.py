"""What dropout does to a model, seen from outside: shares of zeros, rates that reach kernels."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from heldout.core.errors import UserError
from heldout.lm.attention_weights import AttentionWeights, watched
from heldout.lm.layers import decoder_layers
from heldout.lm.residual_stream import ResidualStream, streamed
from heldout.lm.row_noise import row_factors
from heldout.regularizers import dropout
from heldout.regularizers.dropout import Dropout

# B batch, T tokens, D width

SHARE = 0.25
NUM_ROWS, NUM_TOKENS = 8, 24


class Drops(TorchFunctionMode):
    """Every call of dropout at a share: the shape of the tensor, and the share of zeros it got."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Size, float]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        rate = (kwargs or {}).get("p", args[1] if len(args) > 1 else 0.5)
        if func is F.dropout and rate == SHARE:
            kept = args[0] != 0
            zeros = ((result == 0) & kept).sum() / kept.sum()  # no number where all are zero
            self.seen.append((result.shape, float(zeros)))
        return result


def call(model: Any) -> Any:
    """Logits of random tokens in training, without gradients."""
    generator = torch.Generator().manual_seed(5)
    size = min(model.get_input_embeddings().weight.shape[0], 95)
    ids = torch.randint(4, size, (NUM_ROWS, NUM_TOKENS), generator=generator)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits


def dropped_hidden(model: Any) -> str:
    """``effective``, a refusal, or what is wrong."""
    try:
        branches = num_branches(model.train())
    except UserError as error:
        return f"refused: {error}"
    return _judged(model, Dropout(hidden=SHARE), partial(_hidden_fault, branches=branches))


def dropped_attention(model: Any) -> str:
    return _judged(model, Dropout(attention=SHARE), _attention_fault)


def dropped_heads(model: Any) -> str:
    return _judged(model, Dropout(heads=SHARE), _heads_fault)


def dropped_embedding(model: Any) -> str:
    return _judged(model, Dropout(embedding=SHARE), _embedding_fault)


def _judged(model: Any, dropout: Dropout, fault: Callable[[Any], str]) -> str:
    try:
        dropout.check(model, None)
    except UserError as error:
        return f"refused: {error}"
    model.train()
    before = _random(model)
    with dropout.attached(model):
        found = fault(model) or ("" if _random(model) else "two passes are equal")
        model.eval()
        found = found or ("two passes differ in evaluation" if _random(model) else "")
    model.train()
    found = found or ("" if _random(model) == before else "something is left behind")
    model.eval()
    return found or "effective"


def _random(model: Any) -> bool:
    return not torch.equal(call(model), call(model))


def _hidden_fault(model: Any, branches: list[int]) -> str:
    """Every layer drops a share of what is added to it; where nothing is, it passes as it came."""
    layers = decoder_layers(model)
    drops = [Drops() for _ in layers]
    passed: list[float] = []

    def compare(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        entered = args[0] if args else kwargs["hidden_states"]
        left = output[0] if isinstance(output, tuple | list) else output
        if isinstance(left, torch.Tensor):
            passed.append(float((entered == left).float().mean()))

    with ExitStack() as stack:
        for layer, seen in zip(layers, drops, strict=True):
            stack.enter_context(_inside(layer, seen))
            stack.callback(layer.register_forward_hook(compare, with_kwargs=True).remove)
        call(model)
    for place, (layer, seen) in enumerate(zip(layers, drops, strict=True)):
        shares = [zeros for shape, zeros in seen.seen]
        if len(shares) != branches[place]:
            return f"{len(shares)} of {branches[place]} branches of layer {place} drop"
        if any(abs(share - SHARE) > 0.06 for share in shares):
            return f"layer {place} ({type(layer).__name__}) drops {shares} for {SHARE}"
        # What one branch adds without being dropped would let nothing pass. A post-norm layer
        # lets nothing pass anyway; a branch may also add to what another one reads.
        expected = [SHARE**number for number in range(1, len(shares) + 1)]
        through = passed[place] if place < len(passed) else 0.0
        if through > 0.001 and min(abs(through - each) for each in expected) > 0.03:
            return f"{through:.3f} pass layer {place}, not one of {expected}"
    return ""


def _attention_fault(model: Any) -> str:
    """The rate that reaches every kernel of every layer."""
    layers = layers_of(model)
    noted = [AttentionWeights() for _ in layers]
    with ExitStack() as stack:
        for layer, weights in zip(layers, noted, strict=True):
            stack.enter_context(watched(layer, weights))
        call(model)
    for place, weights in enumerate(noted):
        rates = {kernel.share for kernel in weights.kernels}
        if rates - {SHARE}:
            return f"rates {sorted(rates)} reach the kernels of layer {place}"
    return "" if any(each.kernels for each in noted) else "no kernel was seen"


def _heads_fault(model: Any) -> str:
    """Each layer with attention weights drops whole heads of rows."""
    layers = layers_of(model)
    noted = [AttentionWeights() for _ in layers]
    drops: list[set[tuple[int, int, bool]]] = [set() for _ in layers]
    entered = [0]

    def noting(like_BTX: torch.Tensor, count: int, share: float) -> torch.Tensor:
        factors_BTH = row_factors(like_BTX, count, share)
        whole = bool((factors_BTH == factors_BTH[:, :1]).all())
        drops[entered[0]].add((len(like_BTX), count, whole))
        return factors_BTH

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(dropout, "row_factors", noting))
        for place, (layer, weights) in enumerate(zip(layers, noted, strict=True)):
            stack.enter_context(watched(layer, weights))
            enter = partial(_enter, entered, place)
            stack.callback(layer.register_forward_pre_hook(enter).remove)
        call(model)
    for place, (weights, seen) in enumerate(zip(noted, drops, strict=True)):
        heads = {kernel.num_heads for kernel in weights.kernels}
        if heads and seen != {(NUM_ROWS, max(heads), True)}:
            return f"layer {place} has {heads} heads and drops {seen}"
    return ""


def _enter(entered: list[int], place: int, *_: Any) -> None:
    entered[0] = place


def _embedding_fault(model: Any) -> str:
    seen = Drops()
    with _inside(model, seen):
        call(model)
    shares = [zeros for _, zeros in seen.seen]
    if len(shares) != 1 or abs(shares[0] - SHARE) > 0.06:
        return f"shares {shares} of embeddings are dropped"
    return ""


def num_branches(model: Any) -> list[int]:
    """How much is added to the stream in each layer, where nothing is dropped."""
    layers = list(decoder_layers(model))
    streams = [ResidualStream() for _ in layers]
    with ExitStack() as stack:
        for layer, stream in zip(layers, streams, strict=True):
            stack.enter_context(streamed(layer, stream))
        call(model)
    return [stream.num_branches for stream in streams]


def layers_of(model: Any) -> list[Any]:
    """Decoder layers, or the model where it has several stacks of them."""
    try:
        return list(decoder_layers(model))
    except UserError:
        return [model]


@contextmanager
def _inside(module: Any, mode: TorchFunctionMode) -> Iterator[None]:
    """Within this context ``mode`` is at work in every call of the module."""
    own = module.__dict__.get("forward")
    forward = module.forward

    def replaced(*args: Any, **kwargs: Any) -> Any:
        with mode:
            return forward(*args, **kwargs)

    module.forward = replaced
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
