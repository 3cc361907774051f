"""Nested parts, epochs chosen crosswise, the fitted curve, and whole curves of a tiny model."""

import json
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import load_recipe
from heldout.core.regularizer import Evaluation
from heldout.core.results.learning_curve import CurvePoint, learning_curve_from_json
from heldout.core.row import Row
from heldout.jobs.kit.curve_points import fit_points
from heldout.jobs.kit.curve_training import cross_chosen
from heldout.jobs.kit.learning_curve import learning_curve
from heldout.jobs.kit.nested_parts import nested_part
from heldout.jobs.kit.parts import read_parts
from heldout.scaling.learning_curve import curve_loss, fit_curve, refit_curve

SETTINGS = (
    "train.learning_rate=3e-3",
    "train.max_epochs=2",
    "train.batch_size=16",
    "train.micro_batch_size=16",
    "eval.per_epoch=1",
    "data.max_length=48",
    "data.test_share=0",
    "regularizers.weight_decay.rate=0.1",
)


def losses(nats, groups=None):
    nats = np.asarray(nats, float)
    ones = np.ones(len(nats), int)
    return DocumentLosses(nats, ones, ones, np.arange(len(nats)) if groups is None else groups)


def made_points(num_groups=60, noise=0.0, luck=0.0, E=2.0, B=60.0, beta=0.5, rng=None):
    """Trainings whose losses follow a curve, with luck of the seed and of the documents."""
    rng = rng or np.random.default_rng(0)
    document_G = noise * rng.normal(size=num_groups)
    points, found = [], []
    for seed in range(3):
        for fraction in (0.125, 0.25, 0.5, 1.0):
            D = 16_000 * fraction
            loss = (E + B / D**beta) * np.exp(luck * rng.normal())
            each = losses(loss + document_G)
            found.append(each)
            points.append(CurvePoint(fraction, seed, 9, int(D), each.nats_per_token, 2.0, 4.0, 5))
    return points, found


def test_parts_lie_within_one_another_and_hold_whole_groups():
    rows = [Row(i, ({"role": "text", "content": "x"},), f"g{i % 20}") for i in range(60)]
    tokens = [1 + i % 7 for i in range(60)]
    order = [f"g{i}" for i in np.random.default_rng(0).permutation(20)]
    parts = [set(nested_part(rows, tokens, order, f)) for f in (0.25, 0.5, 1.0)]
    assert parts[0] < parts[1] < parts[2] == set(range(60))
    for part, fraction in zip(parts, (0.25, 0.5, 1.0), strict=True):
        share = sum(tokens[i] for i in part) / sum(tokens)
        assert abs(share - fraction) < 0.5 * max(tokens) * 3 / sum(tokens)
        held = {rows[i].group for i in part}
        assert part == {i for i in range(60) if rows[i].group in held}


def test_choosing_the_epoch_does_not_flatter():
    """With noise alone, the lowest of many evaluations is too low; the crosswise one is not."""
    rng = np.random.default_rng(1)
    crosswise, lowest = [], []
    for trial in range(60):
        history = [Evaluation(t, t, losses(5 + rng.normal(size=40))) for t in range(20)]
        crosswise.append(cross_chosen(history, trial).nats_per_token)
        lowest.append(min(each.validation.nats_per_token for each in history))
    assert abs(np.mean(crosswise) - 5) < 0.06
    assert np.mean(lowest) < 4.8


def test_exact_curves_are_found_with_narrow_intervals():
    points, found = made_points()
    curve = fit_points(points, found, 9.0, min_effect=0.01, num_resamples=50)
    assert (curve.E, curve.B, curve.beta) == pytest.approx((2.0, 60.0, 0.5), rel=1e-6)
    double = curve.forecast(2.0)
    truth = 60 / 16_000**0.5 - 60 / 32_000**0.5
    assert double.gain == pytest.approx(truth, rel=1e-6)
    assert double.gain_interval.low == pytest.approx(truth, rel=1e-2)
    assert curve.answer == "yes"
    assert curve.backtest_percent == pytest.approx(0, abs=1e-6)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    truth = 60 / 16_000**0.5 - 60 / 32_000**0.5
    hits = []
    for trial in range(30):
        points, found = made_points(luck=0.01, noise=0.1, rng=np.random.default_rng(trial))
        bounds = fit_points(points, found, 9.0, min_effect=0.01, num_resamples=100).forecast(2.0)
        hits.append(bounds.gain_interval.low <= truth <= bounds.gain_interval.high)
        assert bounds.gain_interval.high > bounds.gain_interval.low
    assert np.mean(hits) >= 0.85


def test_the_quick_refit_is_the_fit():
    D = np.repeat([2e3, 4e3, 8e3, 16e3], 3)
    noise = np.exp(0.004 * np.random.default_rng(0).normal(size=(6, 12)))
    losses_Rn = (2 + 60 / D**0.5) * noise
    quick = curve_loss(32e3, refit_curve(D, losses_Rn))
    slow = [curve_loss(32e3, fit_curve(D, each).values) for each in losses_Rn]
    assert quick == pytest.approx(slow, rel=3e-3)


def test_a_flat_curve_says_no_and_a_noisy_one_unclear():
    flat = fit_points(*made_points(B=1e-3, luck=1e-5), 9.0, min_effect=0.01, num_resamples=50)
    assert flat.answer == "no"
    assert flat.sentence.startswith("No: ")
    noisy = fit_points(*made_points(luck=0.02, B=20), 9.0, min_effect=0.01, num_resamples=50)
    assert noisy.answer == "unclear"


def test_the_curve_needs_four_runs_and_two_sizes():
    with pytest.raises(UserError, match="3 parameters and there are 3 runs"):
        fit_curve([1e3, 2e3, 4e3], [3.0, 2.9, 2.8])
    with pytest.raises(UserError, match="one number of tokens"):
        fit_curve([1e3] * 5, [3.0, 2.9, 2.8, 2.7, 2.6])


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("full", SETTINGS)


@pytest.fixture(scope="module")
def parts(english_text, tmp_path_factory, recipe):
    """160 paragraphs of prose, one group each."""
    path = tmp_path_factory.mktemp("data") / "prose.jsonl"
    found = [" ".join(p.split()) for p in english_text.split("\n\n")]
    texts = [p[:120] for p in found if len(p) > 100][:160]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return read_parts(str(path), recipe)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("curve") / "curve"


@pytest.fixture(scope="module")
def curve(tiny_model_dir, parts, recipe, folder):
    return learning_curve(
        str(tiny_model_dir),
        parts,
        recipe,
        fractions=(0.25, 0.5, 1.0),
        seeds=(0, 1),
        folder=folder,
        num_resamples=40,
    )


@pytest.mark.slow
def test_more_real_text_helps_a_tiny_model(curve, parts):
    assert len(curve.points) == 6
    assert curve.num_heldout_rows == len(parts.validation)
    by_size = {
        fraction: np.mean([p.nats_per_token for p in curve.points if p.fraction == fraction])
        for fraction in (0.25, 0.5, 1.0)
    }
    assert by_size[1.0] < by_size[0.5] < by_size[0.25] < curve.base_nats_per_token
    assert [p.num_rows for p in curve.points if p.fraction == 1.0] == [len(parts.train)] * 2
    assert curve.forecast(4.0).gain > curve.forecast(2.0).gain > 0
    assert curve.backtest_percent is None  # two smaller sizes are too few for a curve


@pytest.mark.slow
def test_a_second_call_goes_on_from_the_folder(curve, tiny_model_dir, parts, recipe, folder):
    about = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
    dropped = about["points"].pop()
    (folder / "curve.json").write_text(json.dumps(about), encoding="utf-8")
    kept = (folder / "0.25_seed_0_history.jsonl").read_text(encoding="utf-8")
    options = {"fractions": (0.25, 0.5, 1.0), "seeds": (0, 1), "num_resamples": 40}
    again = learning_curve(str(tiny_model_dir), parts, recipe, folder=folder, **options)
    assert again == curve
    assert (folder / "0.25_seed_0_history.jsonl").read_text(encoding="utf-8") == kept
    about = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
    assert about["points"][-1] == dropped
    other = replace(recipe, name="other")
    with pytest.raises(UserError, match="holds something else"):
        learning_curve(str(tiny_model_dir), parts, other, folder=folder, **options)


@pytest.mark.slow
def test_parts_side_by_side_give_the_same_curve(curve, tiny_model_dir, parts, recipe, tmp_path):
    both = recipe.replace(train={"side_by_side": 2, "threads": 1})
    options = {"fractions": (0.25, 0.5, 1.0), "seeds": (0, 1), "num_resamples": 40}
    found = learning_curve(str(tiny_model_dir), parts, both, folder=tmp_path / "curve", **options)
    assert found == curve
    assert "of the data" in (tmp_path / "curve" / "logs" / "beside-1.log").read_text()


@pytest.mark.slow
def test_json_round_trip_and_schema(curve):
    entry = curve.to_json()
    assert learning_curve_from_json(json.loads(json.dumps(entry))) == curve
    path = resources.files("heldout.core") / "schemas" / "learning_curve.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(json.dumps(entry)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"fractions": (0.5, 1.0)}, "three or more fractions"),
        ({"fractions": (0.5, 1.0, 2.0)}, "at most 1"),
        ({"fractions": (0.25, 0.5, 1.0), "seeds": (0,)}, "4 trainings or more"),
        ({"fractions": (0.01, 0.5, 1.0)}, "must have 4 groups"),
    ],
)
def test_bad_sizes_are_refused(tiny_model_dir, parts, recipe, options, expected, tmp_path):
    with pytest.raises(UserError, match=expected):
        learning_curve(str(tiny_model_dir), parts, recipe, folder=tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_too_few_groups_are_refused(tiny_model_dir, parts, recipe):
    few = replace(parts, mode="cross_validation", groups={"train": 20})
    with pytest.raises(UserError, match="20 groups are too few"):
        learning_curve(str(tiny_model_dir), few, recipe)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("search.ranges.train.max_epochs=[2, 4]", "leave it out with --set search.ranges="),
        ("regularizers.wise_ft=true", "take it out with --set regularizers.wise_ft=false"),
    ],
)
def test_recipes_that_a_curve_cannot_follow_are_refused(
    tiny_model_dir, parts, setting, expected, tmp_path
):
    recipe = load_recipe("full", [*SETTINGS, setting])
    with pytest.raises(UserError, match=expected):
        learning_curve(str(tiny_model_dir), parts, recipe, folder=tmp_path / "x")
    assert not (tmp_path / "x").exists()
