"""Known runs are told apart, and nothing is told where the evidence is missing."""

import json
import math
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import pytest
from made_histories import made_history

from heldout.core.errors import UserError
from heldout.core.facts import HistoryPoint
from heldout.diagnosis.kind import BOUNDS, kind_of_run

HERE = Path(__file__).parent
# Evaluations of experiments/grokking, every third of double_descent, held-out losses of
# pretrain_demo_model, and losses by the size of the data, of four digits.
RECORDED = json.loads((HERE / "recorded_histories.json").read_text())
EXTRA = {"validation_accuracy": "accuracy", "training_accuracy": "training_accuracy"}

# shared facts on planted runs: (epoch, training loss, held-out loss, share recited of training rows
# beyond held-out rows); a byte-level model from scratch begins near log(256).
AT_START = (0, math.log(256), math.log(256))
OVERFITTED = [AT_START, (12, 2.44, 2.71), (50, 0.08, 6.73)]
# SmolLM2-135M on 24 texts: training loss, held-out loss, type-token ratio, top-1 accuracy.
HYPERFITTED = [
    (3.86, 3.98, 0.121, 0.304),
    (3.24, 3.87, 0.115, 0.304),
    (2.43, 3.85, 0.275, 0.308),
    (0.60, 4.56, 0.569, 0.272),
    (0.23, 4.98, 0.589, 0.257),
    (0.10, 5.44, 0.586, 0.249),
]


def of_columns(columns, *, without=()):
    points = []
    for index, step in enumerate(columns["step"]):
        extra = {
            ours: columns[theirs][index]
            for theirs, ours in {**EXTRA, "weight_norm": "weight_norm"}.items()
            if theirs in columns and ours not in without
        }
        losses = (columns["training_loss"][index], columns["validation_loss"][index])
        points.append(HistoryPoint(int(step), 0.0, *losses, extra=extra))
    return points


def of_rows(rows, *, ttr=True, accuracy=True):
    points = []
    for step, (training, held_out, diversity, right) in enumerate(rows):
        extra = {"ttr": diversity} if ttr else {}
        extra |= {"accuracy": right} if accuracy else {}
        points.append(HistoryPoint(step, step, training, held_out, extra=extra))
    return points


def of_pairs(rows):
    return [HistoryPoint(epoch, epoch, training, held_out) for epoch, training, held_out in rows]


def demo(condition):
    entries = json.loads((HERE / "demo_histories.json").read_text())[condition]
    return [HistoryPoint(**entry) for entry in entries]


def pretraining(last_step):
    """The embedded model's own: logged training loss beside each held-out loss."""
    return [HistoryPoint(*row) for row in RECORDED["pretraining"] if row[0] <= last_step]


def named(*arguments, **options):
    found = kind_of_run(*arguments, **options)
    return found.name, found.confidence


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_recorded_grokking_and_its_control(seed):
    runs = RECORDED["grokking"]
    decayed = runs[f"weight decay 1, seed {seed}"]
    complete = decayed["validation_accuracy"][-1] > 0.9
    assert named(of_columns(decayed)) == ("grokking", "clear" if complete else "likely")
    # Before it comes, and where it never comes, the same curves are overfitting.
    plain = of_columns(runs[f"no weight decay, seed {seed}"])
    assert kind_of_run(plain).name == "classical overfitting"
    early = [p for p in of_columns(decayed) if p.step <= 110]
    assert named(early) == ("classical overfitting", "likely")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_recorded_double_descent(seed):
    runs = RECORDED["double_descent"]
    twice = runs[f"features of two speeds, seed {seed}"]
    assert named(of_columns(twice)) == ("double descent", "clear")
    assert named(of_columns(twice, without=("accuracy",))) == ("double descent", "likely")
    # Halfway up, nothing tells it from overfitting.
    top = max(range(2, len(twice["step"]) - 3), key=lambda i: twice["validation_loss"][i])
    assert kind_of_run(of_columns(twice)[: top + 1]).name == "classical overfitting"
    for ratio in ("0.25", "1"):
        one = runs[f"{ratio} training characters per parameter, seed {seed}"]
        assert kind_of_run(of_columns(one)).name == "classical overfitting"


@pytest.mark.parametrize(
    ("penalty", "name"), [("least_norm", "double descent"), ("ridge", "cannot tell")]
)
def test_double_descent_in_data_from_losses_by_size(penalty, name):
    sizes = [tuple(row) for row in RECORDED["double_descent_in_data"][penalty]]
    assert kind_of_run([], losses_by_size=sizes).name == name


def test_hyperfitting_needs_what_was_generated():
    assert named(of_rows(HYPERFITTED), memorized_share=0.0) == ("hyperfitting", "clear")
    assert named(of_rows(HYPERFITTED), memorized_share=0.8) == ("hyperfitting", "likely")
    # The same losses alone are classical overfitting, as far as anyone can tell.
    blind = kind_of_run(of_rows(HYPERFITTED, ttr=False))
    assert (blind.name, blind.confidence) == ("classical overfitting", "likely")
    assert any("diverse" in sentence for sentence in blind.missing)
    # Early stopping at the best held-out loss is no hyperfitting.
    assert kind_of_run(of_rows(HYPERFITTED[:3])).name == "healthy"
    flat = [(t, v, 0.12, a) for t, v, _, a in HYPERFITTED]
    assert named(of_rows(flat), memorized_share=0.5) == ("classical overfitting", "clear")


def test_planted_overfitting():
    assert kind_of_run(of_pairs(OVERFITTED), memorized_share=0.81).name == "classical overfitting"
    assert named(of_pairs(OVERFITTED[:2]), memorized_share=0.0) == ("cannot tell", "cannot tell")
    assert named(of_pairs(OVERFITTED[:2]), memorized_share=0.2) == ("memorized", "clear")


def test_fits_of_the_embedded_model():
    overfitted = demo("fixed epochs")
    assert named(overfitted, memorized_share=0.8) == ("classical overfitting", "likely")
    stopped = demo("early stopping")
    best = min(stopped, key=lambda point: point.validation_nll)
    kept = [point for point in stopped if point.step <= best.step]
    assert named(kept, memorized_share=0.0) == ("healthy", "likely")
    assert any("easier" in s for s in kind_of_run(kept, memorized_share=0.0).evidence_against)
    assert named(kept, memorized_share=0.3) == ("memorized", "clear")
    slow = demo("a fiftieth of the rate, one epoch")
    assert named(slow) == ("underfitting", "clear")


def test_pretraining_of_the_embedded_model():
    assert named(pretraining(2000)) == ("underfitting", "clear")
    assert kind_of_run(pretraining(11000)).name == "healthy"


def test_nothing_was_learned():
    still = [HistoryPoint(step, 0.0, 3.0 - step / 1000, 3.1 - step / 2000) for step in range(5)]
    assert named(still) == ("underfitting", "clear")


def test_missing_evidence_is_no_kind():
    for history in ([], [HistoryPoint(5, 1.0, 2.0, 2.5)], [HistoryPoint(5, 1.0, 2.0)]):
        assert named(history) == ("cannot tell", "cannot tell")
    assert named([], memorized_share=0.4) == ("memorized", "likely")
    two = [HistoryPoint(0, 0.0, 3.0, 3.0), HistoryPoint(9, 1.0, 2.5, 2.6)]
    assert named(two) == ("cannot tell", "cannot tell")
    healthy = kind_of_run([HistoryPoint(s, s, None, 2 + math.exp(-s)) for s in range(9)])
    assert (healthy.name, healthy.confidence) == ("healthy", "likely")
    assert any("training loss" in sentence for sentence in healthy.missing)


def test_one_bad_evaluation_is_no_double_descent():
    losses = [3.0, 2.5, 2.3, 2.2, 2.6, 2.15, 2.12, 2.11, 2.11]
    history = [HistoryPoint(s, s, loss - 0.1, loss) for s, loss in enumerate(losses)]
    assert kind_of_run(history).name == "healthy"


def test_a_rise_within_its_error_is_none():
    losses = [3.0, 2.5, 2.3, 2.3, 2.36]
    for error, name in ((0.05, "healthy"), (0.01, "classical overfitting")):
        history = [
            HistoryPoint(s, s, loss - 0.1, loss, validation_error=error)
            for s, loss in enumerate(losses)
        ]
        assert kind_of_run(history).name == name


def test_a_failed_training_is_of_no_kind():
    for bad in (math.nan, math.inf):
        with pytest.raises(UserError, match="validation_nll at step 1"):
            kind_of_run([HistoryPoint(0, 0.0, 1.0, 2.0), HistoryPoint(1, 1.0, 1.0, bad)])
    with pytest.raises(UserError, match="steps must increase"):
        kind_of_run([HistoryPoint(1, 0.0, 1.0, 2.0), HistoryPoint(1, 1.0, 1.0, 2.0)])
    with pytest.raises(UserError, match="memorized_share"):
        kind_of_run([], memorized_share=math.nan)


def test_every_bound_has_a_reason_and_a_source():
    for bound in BOUNDS.values():
        assert bound.value > 0
        assert all((bound.unit, bound.reason, bound.source))


def test_kinds_of_made_histories_are_as_recorded():
    """Every word of 300 answers, recorded before the rules became data."""
    for seed, kept in json.loads((HERE / "made_kinds.json").read_text()).items():
        history, options = made_history(int(seed))
        found = kind_of_run(history, **options)
        digest = sha256(json.dumps(asdict(found)).encode()).hexdigest()[:16]
        assert [found.name, found.confidence, digest] == kept, f"seed {seed}: {found}"
