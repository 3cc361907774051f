from itertools import combinations

import numpy as np
import pytest

from heldout.core.measurement import NotMeasured
from heldout.core.stats import ratio_estimate
from heldout.scaling.ensemble import (
    Asymptote,
    EnsembleLosses,
    asymptote,
    ensemble_losses,
    law_weights,
    mixture_nats,
)

# K members, N tokens, V vocabulary, G groups


def logits_of(seed, K=4, N=60, V=11):
    """Members that agree on what depends on the token and differ in the rest."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(1, N, V)) + 0.8 * rng.normal(size=(K, N, V)), rng.integers(V, size=N)


def member_nats(logits_KNV, targets_N):
    log_KNV = logits_KNV - np.log(np.exp(logits_KNV).sum(-1, keepdims=True))
    return -log_KNV[:, np.arange(len(targets_N)), targets_N]


def groups_of(num_tokens, num_groups):
    return np.arange(num_tokens) % num_groups


def test_every_subset_is_the_mean_of_whole_distributions():
    logits_KNV, targets_N = logits_of(0)
    groups_N = groups_of(60, 7)
    losses = ensemble_losses(member_nats(logits_KNV, targets_N), groups_N)
    assert len(losses.subsets) == 2**4 - 1
    for subset, nats_G in zip(losses.subsets, losses.nats_SG, strict=True):
        chosen = np.exp(logits_KNV[list(subset)])
        mean_NV = (chosen / chosen.sum(-1, keepdims=True)).mean(0)
        nats_N = -np.log(mean_NV[np.arange(60), targets_N])
        assert nats_G == pytest.approx(np.bincount(groups_N, nats_N), rel=1e-12)


def test_equal_members_gain_nothing():
    logits_KNV, targets_N = logits_of(1, K=1)
    nats_KN = np.repeat(member_nats(logits_KNV, targets_N), 5, axis=0)
    losses = ensemble_losses(nats_KN, groups_of(60, 9))
    for size in range(1, 6):
        assert losses.loss(size) == pytest.approx(nats_KN[0].mean(), rel=1e-12)
    gain = losses.gain()
    assert gain.value == pytest.approx(0, abs=1e-12)
    found = asymptote(losses)
    assert found.limit.value == pytest.approx(nats_KN[0].mean())
    assert found.remaining == pytest.approx(0, abs=1e-12)
    assert found.remaining_interval.high < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_larger_ensembles_are_never_worse_on_average(seed):
    """Jensen: on each token below the mean member, and ever lower with the size."""
    logits_KNV, targets_N = logits_of(seed, K=6)
    nats_KN = member_nats(logits_KNV, targets_N)
    assert (mixture_nats(nats_KN) <= nats_KN.mean(0) + 1e-12).all()
    losses = ensemble_losses(nats_KN, groups_of(60, 9))
    by_size = [losses.loss(size) for size in range(1, 7)]
    assert by_size == sorted(by_size, reverse=True)
    assert by_size[0] - by_size[-1] == pytest.approx(losses.gain().value)
    assert losses.gain().interval.low > 0


def test_far_losses_neither_overflow_nor_vanish():
    assert mixture_nats([[2000.0], [3000.0]]) == pytest.approx([2000 + np.log(2)])
    assert mixture_nats([[0.0], [5000.0]]) == pytest.approx([np.log(2)])


def made_by_law(limit_G, slope_G, tokens_G, K):
    """Exact losses L_inf + A / k of every subset."""
    subsets = [s for size in range(1, K + 1) for s in combinations(range(K), size)]
    nats_SG = np.stack([tokens_G * (limit_G + slope_G / len(subset)) for subset in subsets])
    return EnsembleLosses(tuple(subsets), nats_SG, tokens_G)


def test_the_law_is_recovered_where_it_holds():
    rng = np.random.default_rng(0)
    tokens_G = rng.integers(5, 40, size=50).astype(float)
    limit_G, slope_G = rng.normal(3.0, 0.3, 50), rng.normal(0.4, 0.05, 50)
    losses = made_by_law(limit_G, slope_G, tokens_G, 5)
    found = asymptote(losses)
    expected = (limit_G * tokens_G).sum() / tokens_G.sum()
    assert found.limit.value == pytest.approx(expected)
    assert found.slope == pytest.approx((slope_G * tokens_G).sum() / tokens_G.sum())
    assert found.remaining == pytest.approx(found.slope / 5)
    assert found.largest_miss < 1e-12
    # Members do not differ: what is left is the interval over groups alone.
    groups = ratio_estimate(limit_G * tokens_G, tokens_G, range(50))
    assert found.limit.interval.low == pytest.approx(groups.interval.low, abs=0.02)
    assert found.limit.interval.high == pytest.approx(groups.interval.high, abs=0.02)
    assert losses.fitted(4) == pytest.approx(losses.loss(4))
    share_G = losses.fitted_nats_G()
    assert share_G == pytest.approx(tokens_G * limit_G)


def test_weights_are_those_of_least_squares():
    sizes = np.arange(1, 7)
    losses = np.random.default_rng(0).normal(size=6)
    slope, limit = np.polyfit(1 / sizes, losses, 1)
    assert law_weights(sizes, np.inf) @ losses == pytest.approx(limit)
    assert law_weights(sizes, 3) @ losses == pytest.approx(limit + slope / 3)


def true_limit(spread, sd_text):
    """-log of the mean probability over members, averaged over texts, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    base = 2 + sd_text * nodes[:, None]
    mean_p = (1 / (1 + np.exp(base + spread * nodes[None]))) @ weights
    return float(weights @ -np.log(mean_p))


def test_the_interval_holds_the_limit_as_often_as_it_says():
    """Members and documents both drawn anew: neither alone would cover it."""
    rng = np.random.default_rng(0)
    K, G, T, spread = 4, 30, 4, np.hypot(0.4, 0.4)
    limit = true_limit(spread, 1.0)
    covered = given_members = 0
    for _ in range(200):
        text = 2 + 0.6 * rng.normal(size=(G, 1)) + 0.8 * rng.normal(size=(G, T))
        members = 0.4 * rng.normal(size=(K, 1, 1)) + 0.4 * rng.normal(size=(K, G, T))
        nats_KN = np.log1p(np.exp(text + members)).reshape(K, -1)
        losses = ensemble_losses(nats_KN, np.repeat(np.arange(G), T))
        bounds = asymptote(losses).limit.interval
        covered += bounds.low <= limit <= bounds.high
        only = ratio_estimate(losses.fitted_nats_G(), losses.num_tokens_G, range(G)).interval
        given_members += only.low <= limit <= only.high
    assert 0.9 <= covered / 200 <= 0.99
    assert given_members / 200 < 0.75


def test_the_limit_has_no_interval_where_groups_are_few_or_one_holds_nearly_all():
    logits_KNV, targets_N = logits_of(2, K=5)
    nats_KN = member_nats(logits_KNV, targets_N)
    few = asymptote(ensemble_losses(nats_KN, groups_of(60, 7)))
    uneven = asymptote(ensemble_losses(nats_KN, np.maximum(np.arange(60), 50)))
    for found in (few, uneven):
        assert found.limit.interval.is_withheld
        assert found.remaining_interval.is_withheld
    assert not asymptote(ensemble_losses(nats_KN, groups_of(60, 9))).limit.interval.is_withheld


@pytest.mark.parametrize("K", [1, 2])
def test_too_few_members_say_nothing(K):
    logits_KNV, targets_N = logits_of(0, K=K)
    found = asymptote(ensemble_losses(member_nats(logits_KNV, targets_N), groups_of(60, 9)))
    assert isinstance(found, NotMeasured)
    assert f"{K} members" in found.reason


def test_one_group_has_no_interval():
    logits_KNV, targets_N = logits_of(0)
    losses = ensemble_losses(member_nats(logits_KNV, targets_N), np.zeros(60))
    assert isinstance(asymptote(losses), NotMeasured)


@pytest.mark.parametrize("K", [12, 17])
def test_drawn_subsets_are_balanced_and_near_all_of_them(K):
    logits_KNV, targets_N = logits_of(3, K=K, N=40, V=5)
    nats_KN = member_nats(logits_KNV, targets_N)
    drawn = ensemble_losses(nats_KN, groups_of(40, 5), max_subsets=40)
    for size in range(1, K):
        of_size = [subset for subset in drawn.subsets if len(subset) == size]
        assert len(set(of_size)) == len(of_size) <= max(40, K)
        counts = np.bincount([member for subset in of_size for member in subset], minlength=K)
        assert set(counts) == {counts[0]}
    assert isinstance(asymptote(drawn), Asymptote)
    pairs = [mixture_nats(nats_KN[list(pair)]).mean() for pair in combinations(range(K), 2)]
    assert drawn.loss(2) == pytest.approx(np.mean(pairs), abs=0.02)


def test_what_is_no_loss_is_refused():
    with pytest.raises(ValueError, match="not a finite number"):
        ensemble_losses([[1.0, np.nan], [1.0, 2.0]], [0, 1])
    with pytest.raises(ValueError, match="must be"):
        ensemble_losses([[1.0, 2.0]], [0, 1, 2])
