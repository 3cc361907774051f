"""How a model uses its parameters: which of them are factors of a product of matrices."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from heldout.lm.trial import plain_ids, training_trial, trial_inputs
from heldout.regularizers.weight_decay import WeightDecay

_T = torch.Tensor
_PRODUCTS = {
    F.linear, torch.matmul, _T.matmul, _T.__matmul__, torch.bmm, _T.bmm, torch.mm, torch.addmm,
    torch.einsum, torch.baddbmm, F.conv1d, torch.conv1d, F.conv2d,
}  # fmt: skip
_GROUPED = ("_grouped_mm", "grouped_mm", "_grouped_linear")
_SAME = {
    _T.__getitem__, _T.transpose, _T.t, _T.view, _T.reshape, _T.to, _T.float, _T.type_as,
    _T.contiguous, _T.chunk, torch.chunk, _T.permute, _T.unsqueeze, _T.squeeze, _T.flatten,
    _T.type, _T.expand, _T.split, torch.split, _T.unbind, torch.unbind, _T.bfloat16,
    torch.transpose, _T.index_select, _T.mT.__get__, _T.T.__get__, torch.stack, torch.cat,
    _T.unflatten, _T.clamp, _T.clamp_, _T.data.__get__,
}  # fmt: skip


class Uses(TorchFunctionMode):
    """Names of parameters that enter a product, whole or in part, and of those used at all."""

    def __init__(self, model: Any):
        super().__init__()
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.kept: list[torch.Tensor] = []
        self.multiplied = {  # with rows of zeros and a one
            f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Embedding)
        }
        self.used: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [*_flat(args), *_flat(tuple(kwargs.values()))]
        named = [self.names[id(each)] for each in given if id(each) in self.names]
        self.used.update(named)
        is_product = func in _PRODUCTS or getattr(func, "__name__", "") in _GROUPED
        if is_product:
            if func is F.linear:
                factors = given[:2]
            elif func in (torch.addmm, torch.baddbmm):
                factors = given[1:]  # the first is added
            else:
                factors = given
            self.multiplied.update(self.names[id(t)] for t in factors if id(t) in self.names)
        result = func(*args, **kwargs)
        if named and func in _SAME and not is_product:
            for each in _flat((result,)):
                self.kept.append(each)  # so that no id is used again
                self.names.setdefault(id(each), named[0])
        return result


def _flat(values: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _flat(value)
    return found


def decayed_wrongly(model: Any) -> list[str]:
    """Parameters that are decayed and multiply nothing, or multiply and are not decayed."""
    found = uses(model)
    decay = WeightDecay()
    return [
        name
        for name, parameter in model.named_parameters()
        if name in found.used
        and bool(decay.parameter_options(name, parameter, {})["weight_decay"])
        != (name in found.multiplied and parameter.ndim >= 2)
    ]


def uses(model: Any) -> Uses:
    """Of one call in training."""
    found = Uses(model)
    inputs = trial_inputs(model, torch.tensor([plain_ids(model, 13)] * 2))
    with training_trial(model), torch.no_grad(), found:
        model(**inputs, use_cache=False)
    return found
