"""Where a model can drop something: found by trials in training mode, which leave it as it was.

Every function costs one forward over two rows of 13 tokens.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.lm.attention_weights import AttentionWeights, watched
from heldout.lm.head import whole_logits
from heldout.lm.layers import decoder_layers
from heldout.lm.residual_stream import ResidualStream, streamed
from heldout.lm.trial import plain_ids, training_trial, trial_inputs

_EMBEDDING = re.compile(r"(^|\.)(drop|emb\w+)$")
_PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "wo")
_NO_PROJECTION = (
    "Dropout(heads=...): no output projection of attention heads was found in {name}; set "
    "dropout.attention or dropout.hidden instead."
)


def layers_with_branches(model: Any) -> list[nn.Module]:
    """The decoder layers, each of which is its input and what its branches add to it."""
    layers = list(decoder_layers(model))
    streams = [ResidualStream() for _ in layers]
    _run_trial(model, [streamed(*each) for each in zip(layers, streams, strict=True)])
    checkpointed = any(getattr(each, "gradient_checkpointing", False) for each in model.modules())
    if not checkpointed and not all(each.has_graph for each in streams if each.num_branches):
        raise UserError(
            f"Dropout(hidden=...): {type(model).__name__} computes its layers again in a backward "
            "of its own, with other masks; set dropout.embedding instead."
        )
    lost = [at for at, each in enumerate(streams) if not (each.is_whole and each.num_branches)]
    if lost:
        raise UserError(
            f"Dropout(hidden=...): in {type(model).__name__}, {len(lost)} of {len(layers)} layers "
            f"are more than their input and what branches add to it, such as layer {lost[0]}; set "
            "dropout.attention or dropout.embedding instead."
        )
    return layers


def kernels_reached(model: Any, layers: Sequence[nn.Module], share: float) -> list[bool]:
    """For each layer whether every use of its attention weights drops just ``share``.

    Raises UserError where there are no attention weights. Where kernels are none of torch's (flash
    attention) they are not seen, and taken to be reached.
    """
    noted = [AttentionWeights() for _ in layers]
    _run_trial(model, [watched(*each) for each in zip(layers, noted, strict=True)])
    is_seen = any(each.kernels for each in noted)
    if not is_seen and model.config._attn_implementation in ("eager", "sdpa", None):
        raise UserError(
            f"Dropout(attention=...): no attention weights were found in {type(model).__name__}; "
            "set dropout.hidden instead."
        )
    return [{kernel.share for kernel in each.kernels} <= {share} for each in noted]


def head_projections(model: Any) -> list[tuple[nn.Module, int]]:
    """Output projections of attention, each with the number of heads that its kernel has."""
    layers = decoder_layers(model)
    noted = [AttentionWeights() for _ in layers]
    ran: list[list[tuple[nn.Module, int]]] = [[] for _ in layers]

    @contextmanager
    def noting(module: nn.Module, place: int) -> Iterator[None]:
        def note(module: nn.Module, inputs: Any) -> None:
            if noted[place].kernels:
                ran[place].append((module, inputs[0].shape[-1]))

        handle = module.register_forward_pre_hook(note)
        try:
            yield
        finally:
            handle.remove()

    named = [
        noting(module, place)
        for place, layer in enumerate(layers)
        for name, module in layer.named_modules()
        if name.rpartition(".")[2] in _PROJECTIONS
    ]
    _run_trial(model, [*named, *(watched(*each) for each in zip(layers, noted, strict=True))])
    found = []
    for weights, projections in zip(noted, ran, strict=True):
        heads = {kernel.num_heads for kernel in weights.kernels}
        if not heads:
            continue
        if len(heads) > 1 or not projections or projections[0][1] % max(heads):
            raise UserError(_NO_PROJECTION.format(name=type(model).__name__))
        found.append((projections[0][0], heads.pop()))
    if not found:
        raise UserError(_NO_PROJECTION.format(name=type(model).__name__))
    return found


def embedding_dropout(model: Any) -> list[nn.Dropout]:
    """The module below the layers that drops what is embedded, if there is one and it is used."""
    above = {id(module) for layer in layers_of(model) for module in layer.modules()}
    found = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Dropout) and _EMBEDDING.search(name) and id(module) not in above
    ]
    called: list[nn.Dropout] = []
    handles = [
        module.register_forward_hook(lambda module, *_: called.append(module)) for module in found
    ]
    try:
        _run_trial(model, [])
    finally:
        for handle in handles:
            handle.remove()
    return called if len(called) == 1 else []


def layers_of(model: Any) -> list[nn.Module]:
    """Decoder layers, or the model where it has several stacks of them."""
    try:
        return list(decoder_layers(model))
    except UserError:
        return [model]


def _run_trial(model: Any, watching: Sequence[Any]) -> None:
    inputs = trial_inputs(model, torch.tensor([plain_ids(model, 13)] * 2))
    with ExitStack() as stack, training_trial(model):
        for each in watching:
            stack.enter_context(each)
        whole_logits(model, inputs)


def turn_off_dropout(model: Any) -> None:
    """See that the model drops nothing in training; UserError where two passes still differ.

    Dropout modules and numbers of modules are set to 0, and numbers of the configuration where
    these are read at work. Costs up to four forwards over two rows of 13 tokens.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        _zero_shares(module)
    if not _is_random(model):
        return
    for module in model.modules():
        _zero_shares(getattr(module, "config", None))
    if _is_random(model):
        raise UserError(
            f"{type(model).__name__} drops something in training that cannot be switched off: set "
            "every dropout in its config.json to 0."
        )


def _zero_shares(owner: Any) -> None:
    held = {} if owner is None else vars(owner)
    for name, value in list(held.items()):
        if "drop" in name and isinstance(value, float) and 0 < value < 1:
            setattr(owner, name, 0.0)


def _is_random(model: Any) -> bool:
    inputs = trial_inputs(model, torch.tensor([plain_ids(model, 13)] * 2))
    with training_trial(model), torch.no_grad():
        logits = [whole_logits(model, inputs) for _ in range(2)]
    return not torch.equal(logits[0].nan_to_num(), logits[1].nan_to_num())


def unread_settings(model: Any) -> dict[str, float]:
    """Shares of dropout that the configuration sets and this architecture of transformers ignores.

    By the hand-checked ``UNREAD``: a configuration may hold what no layer reads.
    """
    config = model.config.get_text_config()
    names = UNREAD.get(config.model_type, ())
    found = {name: getattr(config, name, None) for name in names}
    return {name: share for name, share in found.items() if isinstance(share, float) and share}


def unread_words(settings: dict[str, float]) -> str:
    """A sentence about ``unread_settings``."""
    named = ", ".join(f"{name}={share:g}" for name, share in settings.items())
    return f"the configuration sets {named}, which the model does not read: use Dropout(...)"


UNREAD = {
    "falcon": ("attention_dropout",),
    "mpt": ("resid_pdrop", "emb_pdrop"),
    "nemotron_h": ("hidden_dropout",),
    "phi3": ("embd_pdrop",),
}
