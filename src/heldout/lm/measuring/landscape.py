"""The loss around trained weights: under noise, on the way from the base, and its gradient's noise.

Everything but the gradient noise takes forward passes alone. Weights are put back as they were,
also on an exception.
"""

# P parameters of the model, R draws, M micro-batches

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from heldout.core.distributions import student_t_quantile
from heldout.core.landscape import LossLandscape
from heldout.core.losses import DocumentLosses
from heldout.core.row import Row
from heldout.lm.accelerator import in_float64
from heldout.lm.nll import document_losses, model_inputs
from heldout.lm.scored_loss import scored_loss
from heldout.lm.tokenize import IGNORED, Window, tokenize_row
from heldout.lm.undisturbed import evaluation_mode
from heldout.lm.weights import global_norm, random_like, seed_of, weights_replaced

NOISE_RATIO = 0.02
NUM_DRAWS = 8  # of weight noise: fewer give no interval
PATH_FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
NUM_MICRO_BATCHES = 12
MOST_KEPT = 2**28  # bytes of gradients

_LAYER = re.compile(r"^(?:.*\.)?(?:layers|h|blocks)\.(\d+)\.")


def landscape(
    model: nn.Module,
    base: nn.Module | None,
    tokenizer: Any,
    train: Sequence[Row],
    heldout: Sequence[Row],
    *,
    max_length: int,
    batch_size: int,
    seed: int = 0,
    num_draws: int = NUM_DRAWS,
    known: Mapping[tuple[str, str], DocumentLosses] | None = None,
) -> LossLandscape:
    """All of ``LossLandscape`` on the given rows; give a few dozen, they are read many times.

    ``known`` are losses of these rows by model (best, base) and part (train, test), which are not
    measured again. Costs per row ``num_draws`` + 1 forwards of each model, four of their mixtures
    on both parts, a forward with backward for the gradient noise (two in a large model), and the
    weights once more in memory.
    """
    options: dict[str, Any] = {"max_length": max_length, "batch_size": batch_size}
    train, heldout = list(train), list(heldout)
    known = known or {}

    def losses(name: str, part: str) -> DocumentLosses:
        of_model, rows = (
            (model if name == "best" else base),
            (train if part == "train" else heldout),
        )
        assert of_model is not None
        found = known.get((name, part))
        return document_losses(of_model, rows, tokenizer, **options) if found is None else found

    same = base is not None and _same_shapes(model, base)
    own = losses("best", "train")
    batches = list(_micro_batches(model, train, tokenizer, max_length))
    noise = gradient_noise_scale(model, batches) if len(batches) >= 4 else None
    return LossLandscape(
        sharpness_draws=relative_sharpness(
            model, train, tokenizer, num_draws, NOISE_RATIO, seed, own, **options
        ),
        base_sharpness_draws=relative_sharpness(
            base, train, tokenizer, num_draws, NOISE_RATIO, seed, losses("base", "train"), **options
        )
        if base is not None and same
        else None,
        noise_ratio=NOISE_RATIO,
        path_fractions=np.array(PATH_FRACTIONS) if same else None,
        path_train=tuple(path_losses(model, base, train, tokenizer, own, **options))
        if same
        else (),
        path_heldout=tuple(
            path_losses(model, base, heldout, tokenizer, losses("best", "test"), **options)
        )
        if same
        else (),
        gradient_noise_scale=noise[0] if noise else None,
        gradient_noise_interval=noise[1] if noise else None,
        update_norms=update_norms(model, base) if base is not None and same else None,
    )


def relative_sharpness(
    model: nn.Module,
    rows: Sequence[Row],
    tokenizer: Any,
    num_draws: int,
    noise_ratio: float,
    seed: int,
    own: DocumentLosses,
    *,
    max_length: int,
    batch_size: int,
) -> np.ndarray:
    """(R,) rise of the loss, nats/token, when each weight is multiplied by 1 + ratio x normal.

    Noise relative to each weight leaves the measure as it is when layers are rescaled against one
    another (adaptive sharpness: Kwon et al. 2021, arXiv 2102.11600). The same seed draws the same
    noise for models of the same shapes. ``own`` are the model's losses without noise.
    """
    options: dict[str, Any] = {"max_length": max_length, "batch_size": batch_size}
    before = own.nats_per_token
    rises = []
    for draw in range(num_draws):
        noisy = {
            name: weight
            + weight * (noise_ratio * random_like(weight, seed_of(seed, draw, name), normal=True))
            for name, weight in _weights(model).items()
        }
        with weights_replaced(model, noisy):
            rises.append(document_losses(model, rows, tokenizer, **options).nats_per_token - before)
    return np.array(rises)


def path_losses(
    model: nn.Module,
    base: nn.Module | None,
    rows: Sequence[Row],
    tokenizer: Any,
    own: DocumentLosses,
    *,
    max_length: int,
    batch_size: int,
) -> Iterator[DocumentLosses]:
    """Losses at base + fraction x (tuned - base), for each of ``PATH_FRACTIONS``.

    ``own`` are those at the end of the way.
    """
    assert base is not None
    start, end = _weights(base), _weights(model)
    for fraction in PATH_FRACTIONS[:-1]:
        mixed = {name: torch.lerp(start[name].to(end[name]), end[name], fraction) for name in end}
        with weights_replaced(model, mixed):
            yield document_losses(
                model, rows, tokenizer, max_length=max_length, batch_size=batch_size
            )
    yield own


def gradient_noise_scale(
    model: nn.Module, batches: Sequence[Mapping[str, torch.Tensor]]
) -> tuple[float, tuple[float, float]] | None:
    """Trace of the gradient's covariance over its squared norm, in tokens, with its interval.

    The batch, in scored tokens, at which noise and signal of a step are equal: a larger one wastes
    data, a smaller one only steps (McCandlish et al. 2018, arXiv 1812.06162, B_simple). Both are
    estimated without bias from the gradients of micro-batches; the interval is a jackknife over
    them, of the logarithm. None where the squared norm is not told from zero. Costs a forward and
    backward of each micro-batch, two in a model whose gradients of all of them are more than
    ``MOST_KEPT`` bytes, and the gradients twice in memory or, kept, once for each.
    """
    with _trainable(model) as parameters, evaluation_mode(model):
        total = [torch.zeros_like(p) for p in parameters]
        squares, tokens = [], []
        size_of_all = len(batches) * sum(p.numel() * p.element_size() for p in parameters)
        kept: list[list[torch.Tensor]] = []
        for batch in batches:
            gradients, num_tokens = _gradient(model, batch, parameters)
            squares.append(_dot(gradients, gradients))
            tokens.append(num_tokens)
            for sum_, gradient in zip(total, gradients, strict=True):
                sum_ += gradient
            if size_of_all <= MOST_KEPT:
                kept.append(gradients)
        again = kept or (_gradient(model, batch, parameters)[0] for batch in batches)
        crosses = [_dot(gradients, total) for gradients in again]
        whole = _dot(total, total)
    squares_M, crosses_M = np.array(squares), np.array(crosses)
    num, size = len(batches), float(np.mean(tokens))
    scale = noise_scale(whole, squares_M.sum(), num, size)
    left_out = [
        noise_scale(whole - 2 * cross + square, squares_M.sum() - square, num - 1, size)
        for cross, square in zip(crosses_M, squares_M, strict=True)
    ]
    if scale is None or any(value is None for value in left_out):
        return None
    logs_M = np.log(np.array(left_out, dtype=float))
    error = float(np.sqrt((num - 1) / num * ((logs_M - logs_M.mean()) ** 2).sum()))
    reach = student_t_quantile(0.975, num - 1) * error
    return scale, (scale * float(np.exp(-reach)), scale * float(np.exp(reach)))


def noise_scale(sum_squared: float, sum_of_squares: float, num: int, size: float) -> float | None:
    """From |sum of gradients|^2 and the sum of |gradient|^2 of ``num`` batches of ``size`` tokens.

    E|g|^2 = |G|^2 + trace/size, and E|mean of g|^2 = |G|^2 + trace/(num size); None where the
    estimate of either is not positive.
    """
    mean_squared = sum_squared / num**2
    mean_of_squares = sum_of_squares / num
    signal = (num * mean_squared - mean_of_squares) / (num - 1)
    trace = size * (mean_of_squares - mean_squared) * num / (num - 1)
    return float(trace / signal) if signal > 0 and trace > 0 else None


def update_norms(model: nn.Module, base: nn.Module) -> dict[str, float]:
    """Norm of tuned minus base weights over the norm of the base's, by layer and of ``all``."""
    end, start = _weights(model), _weights(base)
    parts: dict[str, list[str]] = {"all": list(end)}
    for name in end:
        parts.setdefault(layer_of(name), []).append(name)
    norms = {}
    for part, names in parts.items():
        size = float(global_norm([start[name].float() for name in names]))
        change = float(
            global_norm([end[name].float() - start[name].to(end[name]).float() for name in names])
        )
        norms[part] = change / size if size else float(change > 0)
    return norms


def layer_of(name: str) -> str:
    """``layer 3`` for weights of a block, else the module's own name."""
    found = _LAYER.match(name)
    if found:
        return f"layer {found[1]}"
    return name.removeprefix("model.").removesuffix(".weight").removesuffix(".bias")


def _micro_batches(
    model: nn.Module, rows: Sequence[Row], tokenizer: Any, max_length: int
) -> Iterator[dict[str, torch.Tensor]]:
    """About ``NUM_MICRO_BATCHES`` of as many rows each, in order; one window of each row."""
    device = next(model.parameters()).device
    windows: list[Window] = []
    for row in rows:
        windows += tokenize_row(row, tokenizer, max_length).windows[:1]
    edges = np.linspace(0, len(windows), min(NUM_MICRO_BATCHES, len(windows)) + 1).astype(int)
    for first, last in pairwise(edges.tolist()):
        yield model_inputs(model, windows[first:last], tokenizer, device)


def _gradient(
    model: nn.Module, batch: Mapping[str, torch.Tensor], parameters: Sequence[nn.Parameter]
) -> tuple[list[torch.Tensor], int]:
    """Gradient of the mean loss over the scored tokens, and how many these are."""
    num_tokens = int((batch["labels"][:, 1:] != IGNORED).sum())
    with torch.enable_grad():
        loss, _ = scored_loss(model, batch)
        found = torch.autograd.grad(loss / num_tokens, parameters, allow_unused=True)
    return [
        torch.zeros_like(p) if gradient is None else gradient
        for p, gradient in zip(parameters, found, strict=True)
    ], num_tokens


def _dot(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> float:
    products = (in_float64(a) * in_float64(b) for a, b in zip(first, second, strict=True))
    return float(sum(product.sum() for product in products))


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Without quantized ones, whose numbers are codes."""
    return {name: p.detach() for name, p in model.named_parameters() if p.is_floating_point()}


def _same_shapes(model: nn.Module, base: nn.Module) -> bool:
    shapes = [{name: w.shape for name, w in _weights(one).items()} for one in (model, base)]
    return shapes[0] == shapes[1]


@contextmanager
def _trainable(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """All parameters that are not quantized, with gradients meanwhile."""
    parameters = [p for p in model.parameters() if p.is_floating_point()]
    required = [p.requires_grad for p in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield parameters
    finally:
        for parameter, was in zip(parameters, required, strict=True):
            parameter.requires_grad_(was)
