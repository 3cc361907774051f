"""Known answers: evidence whose measurements follow by hand."""

import numpy as np
import pytest

from heldout.core.losses import DocumentLosses
from heldout.core.measurement import NotMeasured
from heldout.core.probe import Evidence, TaskScores
from heldout.probes.generalization_gap import GeneralizationGap
from heldout.probes.heldout_loss import HeldoutLoss
from heldout.probes.task_metric import TaskMetric


def losses(mean, spread=0.5, num=60, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, spread, num)
    tokens = np.full(num, 8)
    return DocumentLosses(
        8 * (mean + values - values.mean()), tokens, 4 * tokens, np.arange(num).astype(str)
    )


def by_name(measured):
    return {m.name: m for m in measured}


def test_heldout_loss_is_paired_with_every_control():
    evidence = Evidence(
        {
            ("base", "test"): losses(3.0),
            ("best", "test"): losses(2.0),
            ("last", "test"): losses(2.5),
            ("fixed_epochs", "test"): losses(2.7),
        }
    )
    found = by_name(HeldoutLoss().measure(evidence))
    best = found["test_nll_best"]
    assert best.value == pytest.approx(2.0)
    assert best.num_units == 60
    differences = {control: c.difference for control, c in best.contrasts.items()}
    assert differences == pytest.approx({"base": -1.0, "last": -0.5, "fixed_epochs": -0.7})
    # The same documents are hard for all, so pairing leaves no noise at all.
    interval = best.contrasts["base"].interval
    assert interval.high - interval.low < 1e-9
    assert found["test_bits_per_byte_best"].value == pytest.approx(2.0 / np.log(2) / 4)


def test_the_gap_of_a_text_against_itself_is_zero():
    same = losses(2.0)
    evidence = Evidence({("best", "train"): same, ("best", "test"): same})
    gap = by_name(GeneralizationGap().measure(evidence))["generalization_gap_best"]
    assert gap.value == 0
    assert gap.interval.low < 0 < gap.interval.high


def test_the_gap_of_the_base_model_is_the_control():
    evidence = Evidence(
        {
            ("base", "train"): losses(3.0, seed=1),
            ("base", "test"): losses(3.2, seed=2),
            ("best", "train"): losses(1.0, seed=1),
            ("best", "test"): losses(2.0, seed=2),
        }
    )
    found = by_name(GeneralizationGap().measure(evidence))
    assert found["generalization_gap_best"].value == pytest.approx(1.0)
    # The held-out rows are .2 harder anyway.
    assert found["generalization_gap_best"].contrasts["base"].difference == pytest.approx(0.8)


def test_task_metric_is_paired():
    groups = np.arange(40).astype(str)
    evidence = Evidence(
        {},
        {
            ("base", "test"): TaskScores("exact_match", np.tile([0.0, 1], 20), groups),
            ("best", "test"): TaskScores("exact_match", np.tile([1.0, 1], 20), groups),
        },
    )
    best = by_name(TaskMetric().measure(evidence))["metric_best"]
    assert best.value == 1.0
    assert best.contrasts["base"].difference == pytest.approx(0.5)
    assert best.contrasts["base"].interval.low > 0


@pytest.mark.parametrize("probe", [HeldoutLoss(), GeneralizationGap(), TaskMetric()])
def test_no_evidence_is_not_measured_and_says_why(probe):
    (found,) = probe.measure(Evidence({}))
    assert isinstance(found, NotMeasured)
    assert found.reason
