from heldout.advice.lights import judge
from heldout.core.measurement import Contrast, Interval, Measurement
from heldout.core.verdict import LIGHTS, Verdict


def nll(difference, low, high, p_value=0.001):
    return [
        Measurement("test_nll_base", 3.0, "nats/token", 40, "group", Interval(2.8, 3.2)),
        Measurement(
            "test_nll_best",
            3.0 + difference,
            "nats/token",
            40,
            "group",
            Interval(2.0, 3.2),
            {"base": Contrast(difference, Interval(low, high), p_value)},
        ),
    ]


def metric(difference, low, high, p_value):
    return Measurement(
        "metric_best",
        0.5,
        "exact_match",
        40,
        "group",
        Interval(0.4, 0.6),
        {"base": Contrast(difference, Interval(low, high), p_value)},
    )


def fit_light(*figures, **options):
    return judge(nll(*figures, **options), min_effect=0.01).verdicts["fit"].light


def test_colors_of_the_fit_light():
    assert fit_light(-0.5, -0.6, -0.4) == "green"
    assert fit_light(0.5, 0.4, 0.6) == "red"
    assert fit_light(-0.1, -0.3, 0.1, p_value=0.3) == "yellow"
    # Certain, and too small to matter.
    assert fit_light(-0.002, -0.003, -0.001) == "yellow"


def test_missing_evidence_is_unknown_and_never_a_pass():
    verdict = judge([], min_effect=0.01)
    assert tuple(verdict.verdicts) == LIGHTS
    assert {light.light for light in verdict.verdicts.values()} == {"unknown"}


def test_holm_over_the_measured_lights():
    borderline = judge([*nll(-0.5, -0.9, -0.01, 0.03), metric(0.1, 0.01, 0.2, 0.04)], min_effect=0)
    assert borderline.verdicts["fit"].light == "yellow"
    assert borderline.verdicts["quality"].light == "yellow"
    alone = judge(nll(-0.5, -0.9, -0.01, 0.03), min_effect=0)
    assert alone.verdicts["fit"].light == "green"


def test_the_headline_says_by_how_much():
    headline = judge(nll(-0.5, -0.6, -0.4), min_effect=0.01, peak="It peaked early.").headline
    assert "2.500 instead of 3.000 nats/token" in headline
    assert "0.500 [0.400, 0.600]" in headline
    assert "It peaked early." in headline


def test_cross_validation_makes_no_test_claim():
    folds = Measurement(
        "out_of_fold_nll_best",
        2.5,
        "nats/token",
        20,
        "group",
        None,
        {"base": Contrast(-0.5, Interval(-0.6, -0.4), 0.001)},
    )
    light = judge([folds], min_effect=0.01).verdicts["fit"]
    assert light.light == "yellow"
    assert "cross-validation" in light.sentence


def test_verdicts_survive_json():
    verdict = judge(nll(-0.5, -0.6, -0.4), min_effect=0.01)
    assert Verdict.from_json(verdict.to_json()) == verdict
