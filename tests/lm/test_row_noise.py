"""Dropout by rows is dropout: same functions, same shares, and torch's own for all other calls."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from heldout.lm import row_noise
from heldout.lm.layout import layout_of, set_layout
from heldout.lm.row_noise import RunsOfRows, dropout_by_row, noise_of_step

LENGTHS = (7, 4, 4)
ROWS = [torch.arange(length) + 10 * row for row, length in enumerate(LENGTHS)]
T, N = max(LENGTHS), sum(LENGTHS)


@pytest.fixture(autouse=True)
def begin():
    set_layout(layout_of(ROWS))
    torch.manual_seed(0)
    with dropout_by_row():
        yield


def flat_of(values_BTX):
    return torch.cat([row[:length] for row, length in zip(values_BTX, LENGTHS, strict=True)])[None]


def test_torch_has_its_own_functions_back():
    assert F.dropout is not row_noise._TORCH_DROPOUT
    with dropout_by_row():
        pass
    assert F.dropout is not row_noise._TORCH_DROPOUT, "the outer context goes on"
    with pytest.raises(ZeroDivisionError), dropout_by_row():
        1 / 0  # noqa: B018
    x = torch.ones(3, T, 8)
    for module in (nn.Dropout(0.0), nn.Dropout(0.5).eval()):
        assert module(x) is x
    assert not nn.Dropout(1.0)(x).any()


def test_a_layer_of_any_shape_drops_its_share_and_keeps_the_mean():
    for shape in [(3, T, 40), (3 * T, 40), (3, 5, T, T), (15, T, T), (3, 2), (5, 900), (200,)]:
        x = torch.ones(shape, dtype=torch.float64)
        dropped = torch.cat([nn.Dropout(0.25)(x).flatten() for _ in range(4000 // x.numel() + 1)])
        assert set(dropped.unique().tolist()) == {0.0, 4 / 3}
        assert (dropped == 0).double().mean().item() == pytest.approx(0.25, abs=0.04)
    x = torch.ones(3, T, 40, requires_grad=True)
    y = F.dropout(x, 0.5)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    z = x.detach().clone()
    assert F.dropout(z, 0.5, inplace=True) is z
    assert (z == 0).any()


def test_padded_flat_and_flattened_tokens_lose_the_same():
    x = torch.ones(3, T, 10)
    with noise_of_step(3, 5, {"ids": x}):
        padded, whole = F.dropout(x, 0.5), F.dropout(x.view(-1, 10), 0.5).view(3, T, 10)
    set_layout(layout_of(ROWS, flat=True))
    with noise_of_step(3, 5, {"ids": x}):
        flat, tokens = F.dropout(torch.ones(1, N, 10), 0.5), F.dropout(torch.ones(N, 10), 0.5)
    assert torch.equal(flat, flat_of(padded))
    assert torch.equal(tokens[None], flat_of(whole))
    assert not torch.equal(padded, whole)


def attention_inputs(num_keys=4):
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4, T, 8), (3, num_keys, T, 8), (3, num_keys, T, 8)]
    q, k, v = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    mask = torch.ones(T, T, dtype=torch.bool).tril().expand(3, 1, T, T).clone()
    for row, length in enumerate(LENGTHS):
        mask[row, :, :, length:] = False
    return q, k, v, mask


@pytest.mark.parametrize("kind", ["causal", "bool", "float", "grouped"])
def test_attention_is_that_of_torch_but_for_what_is_dropped(kind):
    q, k, v, mask = attention_inputs(2 if kind == "grouped" else 4)
    options = {"is_causal": True} if kind == "causal" else {"attn_mask": mask}
    if kind == "float":
        options["attn_mask"] = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(
            ~mask, -torch.inf
        )
    options |= {"scale": 0.3, "enable_gqa": kind == "grouped"}
    expected = row_noise._TORCH_ATTENTION(q, k, v, **options)
    found = F.scaled_dot_product_attention(q, k, v, dropout_p=1e-9, **options)
    torch.testing.assert_close(found, expected)
    mean = sum(
        F.scaled_dot_product_attention(q, k, v, dropout_p=0.3, **options) for _ in range(400)
    )
    assert (mean / 400 - expected).abs().max() < 0.35


@pytest.mark.parametrize("by_kernels", [False, True])
def test_runs_of_rows_lose_what_the_padded_batch_loses(by_kernels, monkeypatch):
    """Also with torch's own kernels, which run by row, where an accelerator has faster ones."""
    if by_kernels:
        monkeypatch.setattr(row_noise, "_ON_CPU", ())
        monkeypatch.setattr(row_noise, "_seeded", _seeded_on_cpu)
    q, k, v, mask = attention_inputs()

    def attended(part, **options):
        return F.scaled_dot_product_attention(
            q[part], k[part], v[part], dropout_p=0.5, scale=0.5, **options
        )

    torch.manual_seed(4)
    padded = [attended(slice(None), attn_mask=mask) for _ in range(2)]
    torch.manual_seed(4)
    set_layout(layout_of(ROWS, flat=True))
    for whole in padded:  # two layers
        runs = RunsOfRows()
        for first, count, length in ((0, 1, 7), (1, 2, 4)):
            part = slice(first, first + count), slice(None), slice(length)
            with runs.run(first, count):
                output = attended(part, is_causal=True)
            torch.testing.assert_close(output, whole[part])
    assert not torch.equal(*padded)


def _seeded_on_cpu(device, seed, device_seed):
    state = torch.Generator().manual_seed(device_seed).get_state()
    return row_noise.RandomState(device, state, None)


def test_layers_computed_again_lose_the_same():
    x = torch.ones(3, T, 10, requires_grad=True)
    y = checkpoint(lambda x: F.dropout(F.dropout(x, 0.3), 0.3), x, use_reentrant=False)
    F.dropout(x, 0.5)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
