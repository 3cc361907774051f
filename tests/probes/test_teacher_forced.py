"""Known answers of the probes that one forward pass feeds, on made-up statistics of a pass."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from heldout.core.facts import Facts
from heldout.core.losses import DocumentLosses
from heldout.core.measurement import NotMeasured
from heldout.core.pass_statistics import (
    CONFIDENCE_BINS,
    POSITION_EDGES,
    CanaryLosses,
    PassStatistics,
    PersonalData,
    Suffixes,
)
from heldout.core.probe import Evidence
from heldout.probes.capacity import Capacity
from heldout.probes.confidence import Confidence, equal_mass_bins
from heldout.probes.domains import Domains
from heldout.probes.exposure import UNSEEN_MEAN, UNSEEN_MEDIAN, Exposure, exposure
from heldout.probes.extraction import Extraction, discoverable
from heldout.probes.generalization_gap import GeneralizationGap
from heldout.probes.membership import (
    Membership,
    Scores,
    area_difference,
    area_interval,
    area_under_curve,
    membership_scores,
    true_positive_rate,
)
from heldout.probes.personal_data import PersonalDataMemorized
from heldout.probes.position import Position

TOKENS = 100


def made_losses(nats_per_token, num=120, tokens=TOKENS, seed=0, prefix="g"):
    noise = np.random.default_rng(seed).normal(0, 0.2, num)
    noise -= noise.mean()
    return DocumentLosses(
        tokens * (nats_per_token + noise),
        np.full(num, tokens),
        np.full(num, 4 * tokens),
        np.array([f"{prefix}{i}" for i in range(num)]),
    )


def made(
    nats_per_token=2.0,
    *,
    num=120,
    seed=0,
    prefix="g",
    memorized=0,
    suffix_nats=60.0,
    confidence=0.6,
    accuracy=0.6,
):
    """Statistics of equal documents, the first ``memorized`` of which are known by heart."""
    losses = made_losses(nats_per_token, num, seed=seed, prefix=prefix)
    greedy = np.arange(num) < memorized
    nats = np.where(greedy, 0.01, suffix_nats)
    bins = np.zeros((num, CONFIDENCE_BINS))
    bins[:, int(confidence * CONFIDENCE_BINS)] = TOKENS
    positions = np.zeros((num, len(POSITION_EDGES)))
    positions[:, 0] = TOKENS
    return PassStatistics(
        losses=losses,
        row_index_D=np.arange(num) + 1000,
        suffixes={
            "short": Suffixes(10, 20, nats, greedy),
            "long": Suffixes(50, 50, nats, greedy),
        },
        zlib_bytes_D=np.full(num, 150),
        min_k_D=-losses.nll_nats_D / 50,
        min_k_plus_D=-losses.nll_nats_D / 80,
        entropy_nats_D=np.full(num, 1.5 * TOKENS),
        brier_D=np.full(num, 0.4 * TOKENS),
        bin_tokens_DC=bins,
        bin_confidence_DC=bins * confidence,
        bin_correct_DC=bins * accuracy,
        position_nats_DP=positions * nats_per_token,
        position_tokens_DP=positions,
    )


def evidence_of(statistics, **fields):
    return Evidence(
        {key: r.losses for key, r in statistics.items()}, statistics=statistics, **fields
    )


def pairs(best_train, best_test, base_train=None, base_test=None, **fields):
    statistics = {
        ("base", "train"): base_train or made(),
        ("base", "test"): base_test or made(seed=1, prefix="h"),
        ("best", "train"): best_train,
        ("best", "test"): best_test,
    }
    return evidence_of(statistics, **fields)


def by_name(measured):
    return {m.name: m for m in measured}


def test_discoverable_is_the_formula_of_hayes():
    """1 - (1 - p_z)^n >= p: half likely in 100 samples from p_z = 1 - .5 ** .01 = .0069 on."""
    threshold = 1 - 0.5**0.01
    nats = -np.log([threshold * 1.001, threshold * 0.999, 1.0, 1e-30])
    assert discoverable(nats, 100, 0.5).tolist() == [True, False, True, False]
    assert discoverable(np.array([np.nan]), 100, 0.5).tolist() == [False]
    # So tiny that 1 - p is 1 in double precision, and still not nothing in enough samples.
    assert discoverable(np.array([40.0]), 10**18, 0.5).all()


def test_extraction_has_both_controls():
    evidence = pairs(made(memorized=60), made(seed=1, prefix="h", memorized=6))
    found = by_name(Extraction().measure(evidence))
    best = found["extraction_best"]
    assert best.value == 0.5
    assert best.contrasts["heldout"].difference == pytest.approx(0.45)
    assert best.contrasts["base"].difference == pytest.approx(0.45)
    assert best.contrasts["base"].interval.low > 0.3
    assert found["extraction_base"].value == 0
    assert found["discoverable_best"].value == 0.5
    # exp(-4) a sample: too rare for greedy decoding, nearly sure in a hundred samples.
    likely = pairs(made(suffix_nats=4.0), made(seed=1, prefix="h"))
    found = by_name(Extraction().measure(likely))
    assert (found["extraction_best"].value, found["discoverable_best"].value) == (0, 1)


def test_rows_too_short_for_fifty_and_fifty():
    def short(statistics):
        none = np.full(len(statistics), np.nan)
        statistics.suffixes["long"] = Suffixes(50, 50, none, np.zeros(len(statistics), dtype=bool))
        return statistics

    evidence = pairs(
        short(made(memorized=60)),
        short(made(seed=1, prefix="h")),
        short(made()),
        short(made(seed=1, prefix="h")),
    )
    found = by_name(Extraction().measure(evidence))
    assert isinstance(found["extraction_best"], NotMeasured)
    assert "100 scored tokens, has 0 and 0" in found["extraction_best"].reason
    assert found["discoverable_best"].value == 0.5
    assert "20 tokens after 10" in found["discoverable_best"].note


def slow_area(members, others):
    wins = [(m > o) + 0.5 * (m == o) for m, o in itertools.product(members, others)]
    return sum(wins) / len(wins)


def test_area_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 9, 40), rng.integers(0, 7, 30)
    assert area_under_curve(members, others) == pytest.approx(slow_area(members, others))


def test_newcombes_interval_is_honest_at_certainty():
    for area in (0.0, 0.3, 0.5, 1.0):
        interval = area_interval(area, 40, 60)
        assert interval.low <= area <= interval.high
        assert 0.03 < interval.high - interval.low < 0.3
    assert area_interval(1.0, 40, 60).high == 1
    mirrored = area_interval(0.3, 40, 60), area_interval(0.7, 40, 60)
    assert mirrored[0].low == pytest.approx(1 - mirrored[1].high)


def test_newcombes_interval_covers():
    """Of 400 samples of two normal distributions, about 95 % hold the true area."""
    rng = np.random.default_rng(0)
    true = 0.5 * (1 + math.erf(1.0 / 2))  # means 1 apart, deviation 1 each: Phi(1 / sqrt 2)
    hits = 0
    for _ in range(400):
        area = area_under_curve(rng.normal(1, 1, 30), rng.normal(0, 1, 40))
        interval = area_interval(area, 30, 40)
        hits += interval.low <= true <= interval.high
    assert 0.92 < hits / 400 <= 0.99


def test_shuffled_membership_is_one_half():
    """Rows of one kind, parted by chance: mean area one half, and intervals that hold it."""
    rng = np.random.default_rng(0)
    areas, held = [], 0
    for _ in range(200):
        scores = rng.permutation(np.linspace(-3, 0, 80))
        area = area_under_curve(scores[:40], scores[40:])
        areas.append(area)
        interval = area_interval(area, 40, 40)
        held += interval.low <= 0.5 <= interval.high
    assert np.mean(areas) == pytest.approx(0.5, abs=0.02)
    assert held >= 180


def test_membership_is_measured_beside_the_base():
    # The training rows are easier by themselves; tuning adds nothing, so nothing is claimed.
    easy, hard = made(1.8), made(2.0, seed=1, prefix="h")
    found = by_name(Membership().measure(pairs(easy, hard, easy, hard)))
    loss = found["membership_auc_loss_best"]
    assert loss.value > 0.6
    assert loss.contrasts["base"].difference == 0
    # Learned by heart: all attacks see it, and the base does not.
    known = made(0.1)
    found = by_name(Membership().measure(pairs(known, hard, made(2.0), hard)))
    for attack in ("loss", "zlib", "zlib_total", "min_k", "min_k_plus", "reference"):
        auc = found[f"membership_auc_{attack}_best"]
        assert auc.value == 1
        assert auc.contrasts["base"].interval.low > 0.3
        assert auc.contrasts["base"].p_value < 1e-6
    assert found["membership_tpr_best"].value == 1
    assert found["membership_tpr_best"].contrasts["heldout"].difference > 0.97


def test_zlib_scores_are_the_authors_and_the_whole_loss():
    rng = np.random.default_rng(3)
    statistics = replace(made(seed=3), zlib_bytes_D=rng.integers(50, 500, 120))
    statistics.losses.num_tokens_D[:] = rng.integers(10, 200, 120)
    losses = statistics.losses
    log_perplexity = losses.nll_nats_D / losses.num_tokens_D
    authors = membership_scores(statistics, "zlib", None)
    # Theirs is compressed bytes over log perplexity, the larger the likelier: the same order.
    theirs = statistics.zlib_bytes_D / log_perplexity
    assert (np.argsort(authors) == np.argsort(theirs)).all()
    total = membership_scores(statistics, "zlib_total", None)
    np.testing.assert_allclose(total, -losses.nll_nats_D / statistics.zlib_bytes_D)


def test_few_groups_give_no_interval_of_an_area():
    crowded = made(1.7)
    crowded.losses.groups_D[:] = np.repeat([f"g{i}" for i in range(4)], 30)
    found = by_name(Membership().measure(pairs(crowded, made(seed=1, prefix="h"))))
    area = found["membership_auc_loss_best"]
    assert area.interval.is_withheld
    assert area.contrasts["base"].interval.is_withheld


def test_intervals_of_areas_are_those_of_rows_that_areas_are_shown_of():
    rng = np.random.default_rng(5)

    def scores(num):
        groups = np.arange(num)
        return Scores(rng.normal(2.4, 1, num), groups, rng.normal(0, 1, num), groups)

    assert scores(15).interval().is_withheld
    assert area_difference(scores(15), scores(15)).interval.is_withheld
    assert not scores(20).interval().is_withheld
    # Near 1, five rows in 8 groups: no wider than 1.6 times the estimates' own 95 % (.097).
    groups, widths = np.repeat(np.arange(8), 5), []
    for _ in range(200):
        own, rest = rng.normal(size=(2, 2, 8)).repeat(5, axis=-1), rng.normal(size=(2, 40))
        sides = 0.3**0.5 * own[0] + 0.7**0.5 * rest
        interval = Scores(sides[0] + 2.4, groups, sides[1], groups).interval()
        widths.append(interval.high - interval.low)
    assert np.mean(widths) < 1.6 * 0.097


def test_true_positives_need_a_hundred_controls():
    few = made(seed=1, prefix="h", num=60)
    found = by_name(Membership().measure(pairs(made(), few, made(), few)))
    assert isinstance(found["membership_tpr_best"], NotMeasured)
    members, others = np.arange(1000.0), np.arange(1000.0)
    assert true_positive_rate(members, others, 0.01).sum() == 10


def test_rows_of_one_group_widen_the_interval_where_they_are_alike():
    one = made(1.7)
    crowded = made(1.7)
    by_loss = np.argsort(crowded.losses.nll_nats_D)
    crowded.losses.groups_D[by_loss] = np.repeat([f"g{i}" for i in range(12)], 10)
    other = made(seed=1, prefix="h")
    width = []
    for train in (one, crowded):
        auc = by_name(Membership().measure(pairs(train, other)))["membership_auc_loss_best"]
        width.append(auc.interval.high - auc.interval.low)
    assert width[1] > 1.5 * width[0]


def test_confidence_of_known_bins():
    sure = made(seed=1, prefix="h", confidence=0.9, accuracy=0.5)
    fair = made(seed=1, prefix="h", confidence=0.6, accuracy=0.6)
    found = by_name(Confidence().measure(pairs(made(), sure, base_test=fair)))
    assert found["ece_best"].value == pytest.approx(0.4)
    assert found["ece_adaptive_best"].value == pytest.approx(0.4)
    assert found["overconfidence_best"].value == pytest.approx(0.4)
    assert found["ece_best"].contrasts["base"].difference == pytest.approx(0.4)
    assert found["ece_base"].value == pytest.approx(0.0)
    assert found["brier_best"].value == pytest.approx(0.4)
    assert found["entropy_best"].value == pytest.approx(1.5)


def test_bins_of_equal_mass():
    tokens = np.zeros(CONFIDENCE_BINS)
    tokens[:150] = 1
    bins = equal_mass_bins(tokens, 15)
    assert np.bincount(bins, tokens).tolist() == [10] * 15


def test_capacity_counts_bits():
    """1.5 nats a token are saved on training rows and .5 on held-out ones: 1 nat is memory."""
    base_train, base_test = made(3.0), made(3.0, seed=1, prefix="h")
    best_train, best_test = made(1.5), made(2.5, seed=1, prefix="h")
    facts = Facts(num_train_tokens=10 * 120 * TOKENS, trained_parameters=10_000)
    evidence = pairs(best_train, best_test, base_train, base_test, facts=facts)
    found = by_name(Capacity().measure(evidence))
    tokens = 10 * 120 * TOKENS
    assert found["information_bits"].value == pytest.approx(3.0 * tokens / math.log(2))
    assert found["memorized_bits_best"].value == pytest.approx(1.0 * tokens / math.log(2))
    assert found["bits_per_parameter_best"].value == pytest.approx(tokens / math.log(2) / 10_000)
    assert found["capacity_load"].value == pytest.approx(3.0 * tokens / math.log(2) / 36_000)
    assert "capacity-limited" in found["capacity_load"].note
    big = Facts(num_train_tokens=tokens, trained_parameters=10**7)
    evidence = pairs(best_train, best_test, base_train, base_test, facts=big)
    assert "data-limited" in by_name(Capacity().measure(evidence))["capacity_load"].note


def test_generalization_is_no_memory():
    evidence = pairs(
        made(2.0, seed=3), made(2.0, seed=4, prefix="h"), made(3.0), made(3.0, seed=1, prefix="h")
    )
    memorized = by_name(Capacity().measure(evidence))["memorized_bits_best"]
    interval = memorized.contrasts["heldout"].interval
    assert interval.low < 0 < interval.high


def test_position_is_paired():
    evidence = pairs(made(), made(1.5, seed=1, prefix="h"))
    found = by_name(Position().measure(evidence))
    assert list(found) == ["position_nll_0_best"], "other buckets hold no token"
    assert found["position_nll_0_best"].contrasts["base"].difference == pytest.approx(-0.5)


def test_forgetting_is_the_mean_over_domains():
    losses = {}
    for domain, base, best in (("poems", 2.0, 2.4), ("laws", 3.0, 3.2)):
        losses["base", f"domain:{domain}"] = made_losses(base)
        losses["best", f"domain:{domain}"] = made_losses(best)
    found = by_name(Domains().measure(Evidence(losses)))
    assert found["domain_nll_poems_best"].contrasts["base"].difference == pytest.approx(0.4)
    assert found["domain_nll_ratio_poems_best"].value == pytest.approx(1.2)
    assert found["domain_nll_ratio_poems_best"].contrasts["base"].difference == pytest.approx(0.2)
    forgetting = found["forgetting_best"]
    assert forgetting.value == pytest.approx(2.8)
    assert forgetting.contrasts["base"].difference == pytest.approx(0.3)
    assert forgetting.contrasts["base"].p_value < 1e-6
    assert isinstance(by_name(Domains().measure(Evidence({})))["forgetting_best"], NotMeasured)


def test_gap_of_a_text_against_itself_is_zero_in_bits_per_byte():
    same = made_losses(2.0)
    evidence = Evidence({("best", "train"): same, ("best", "test"): same})
    gap = by_name(GeneralizationGap().measure(evidence))["generalization_gap_bits_per_byte_best"]
    assert gap.value == 0
    worse = Evidence({("best", "train"): same, ("best", "test"): made_losses(3.0)})
    gap = by_name(GeneralizationGap().measure(worse))["generalization_gap_bits_per_byte_best"]
    assert gap.value == pytest.approx(1.0 / math.log(2) / 4)


def test_exposure_is_that_of_tensorflow_privacy():
    """Their fixture: references 1 to 16; loss 0 and .1 give 4, 20 gives -.0875, 3.5 gives 2."""
    found = exposure(np.array([0, 0.1, 20, 3.5]), np.arange(1.0, 17))
    assert found == pytest.approx([4, 4, -0.0875, 2], abs=5e-5)


def test_exposure_of_what_was_never_seen_is_not_zero():
    rng = np.random.default_rng(0)
    references = rng.normal(size=(4000, 256))
    bits = exposure(rng.normal(size=4000), references)
    assert bits.mean() == pytest.approx(UNSEEN_MEAN, abs=0.07)
    assert pytest.approx(1.4427, abs=1e-4) == UNSEEN_MEAN
    assert np.median(bits) == pytest.approx(UNSEEN_MEDIAN, abs=0.05)
    unseen = CanaryLosses(np.ones(40), rng.normal(size=40), rng.normal(size=(40, 256)))
    level = by_name(Exposure().measure(Evidence({}).adding(unseen, "best")))["exposure_best"]
    assert level.interval.low <= UNSEEN_MEAN <= level.interval.high
    assert "unseen secrets have 1.44 on average (1 in the median)" in level.note


def test_exposure_beside_the_base():
    rng = np.random.default_rng(0)
    copies = np.repeat([1, 2, 4, 8], 8)
    references = rng.normal(20, 1, (32, 256))
    learned = CanaryLosses(copies, np.where(copies < 8, 20.0, 1.0), references)
    base = CanaryLosses(copies, rng.normal(20, 1, 32), references)
    evidence = Evidence({}).adding(learned, "best").adding(base, "base")
    found = by_name(Exposure().measure(evidence))
    assert found["exposure_8_copies_best"].value == pytest.approx(8.0)
    assert found["exposure_8_copies_best"].contrasts["base"].interval.low > 3
    assert found["exposure_1_copies_best"].value == pytest.approx(1.0, abs=0.3)
    assert "8.0 at 8" in found["exposure_best"].note
    (missing,) = Exposure().measure(Evidence({}))
    assert "plant-canaries" in missing.reason


def test_personal_data_counts_what_is_memorized():
    # Rows 1000 and 1010 hold an address in the suffix; only the first five rows are recited.
    personal = PersonalData({"short": {1000: ("e-mail address",), 1010: ("phone number",)}})
    evidence = pairs(made(memorized=5), made(seed=1, prefix="h"))
    evidence = evidence.adding(personal, "train").adding(PersonalData({}), "test")
    (found,) = PersonalDataMemorized().measure(evidence)
    assert found.value == pytest.approx(1 / 120)
    assert found.note.startswith("1 of 2 tested")
    assert set(found.contrasts) == {"heldout", "base"}


@pytest.mark.parametrize(
    "probe",
    [
        Extraction(),
        Membership(),
        Confidence(),
        Capacity(),
        Position(),
        Domains(),
        Exposure(),
        PersonalDataMemorized(),
        GeneralizationGap(),
    ],
)
def test_no_evidence_is_not_measured_and_says_why(probe):
    found = probe.measure(Evidence({}))
    assert found
    for entry in found:
        assert isinstance(entry, NotMeasured)
        assert entry.reason
