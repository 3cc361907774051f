from dataclasses import replace

from heldout.core.facts import Facts, HistoryPoint
from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.verdict import VERDICTS, Verdicts
from heldout.diagnosis.verdicts import verdicts_of


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


def fit_color(*figures, **options):
    return verdicts_of(nll(*figures, **options), min_effect=0.01).verdicts["fit"].color


def test_colors_of_the_fit_verdict():
    assert fit_color(-0.5, -0.6, -0.4) == "green"
    assert fit_color(0.5, 0.4, 0.6) == "red"
    assert fit_color(-0.1, -0.3, 0.1, p_value=0.3) == "yellow"
    # Certain, and too small to matter.
    assert fit_color(-0.002, -0.003, -0.001) == "yellow"


def test_missing_evidence_is_unknown_and_never_a_pass():
    verdict = verdicts_of([], min_effect=0.01)
    assert tuple(verdict.verdicts) == VERDICTS
    assert {one.color for one in verdict.verdicts.values()} == {"unknown"}


def test_holm_over_the_measured_verdicts():
    borderline = verdicts_of(
        [*nll(-0.5, -0.9, -0.01, 0.03), metric(0.1, 0.01, 0.2, 0.04)], min_effect=0
    )
    assert borderline.verdicts["fit"].color == "yellow"
    assert borderline.verdicts["quality"].color == "yellow"
    alone = verdicts_of(nll(-0.5, -0.9, -0.01, 0.03), min_effect=0)
    assert alone.verdicts["fit"].color == "green"


def test_the_headline_says_by_how_much():
    headline = verdicts_of(nll(-0.5, -0.6, -0.4), min_effect=0.01, peak="It peaked early.").headline
    assert "2.500 instead of 3.000 nats/token" in headline
    assert "0.500 [0.400, 0.600]" in headline
    assert "It peaked early." in headline


def test_the_interval_in_the_sentence_holds_the_figure_before_it():
    def sentence(*figures, **options):
        return verdicts_of(nll(*figures, **options), min_effect=0.01).verdicts["fit"].sentence

    assert "Better than the base model by 0.500 nats/token [0.400, 0.600]" in sentence(
        -0.5, -0.6, -0.4
    )
    assert "Worse than the base model by 0.500 nats/token [0.400, 0.600]" in sentence(0.5, 0.4, 0.6)
    told = sentence(0.1, -0.1, 0.3, p_value=0.3)
    unclear = "No significant difference from the base model: a gain of -0.100 nats/token"
    assert f"{unclear} [-0.300, 0.100]" in told


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
    verdict = verdicts_of([folds], min_effect=0.01).verdicts["fit"]
    assert verdict.color == "yellow"
    assert "cross-validation" in verdict.sentence


def test_verdicts_survive_json():
    verdict = verdicts_of(nll(-0.5, -0.6, -0.4), min_effect=0.01)
    assert Verdicts.from_json(verdict.to_json()) == verdict


def harm(name, value, difference, low, high, p_value=0.001, control="base"):
    contrast = {control: Contrast(difference, Interval(low, high), p_value)}
    return Measurement(name, value, "nats/token", 40, "group", Interval(0.0, 9.0), contrast)


def verdict_of(name, *measurements, **facts):
    return verdicts_of(list(measurements), min_effect=0.01, facts=Facts(**facts)).verdicts[name]


def test_forgetting_is_red_only_where_it_is_sure_and_matters():
    def color(*figures):
        return verdict_of("forgetting", harm("forgetting_best", 3.0, *figures)).color

    assert color(0.3, 0.2, 0.4) == "red"
    assert color(0.03, 0.02, 0.04) == "green"  # sure, and too small to matter
    assert color(0.08, -0.05, 0.21, 0.3) == "yellow"
    assert color(-0.2, -0.3, -0.1) == "green"


def test_forgetting_says_which_way():
    worse = verdict_of("forgetting", harm("forgetting_best", 3.0, 0.3, 0.2, 0.4)).sentence
    better = verdict_of("forgetting", harm("forgetting_best", 3.0, -0.3, -0.4, -0.2)).sentence
    assert worse.startswith("Worse than the base model on other text by 0.300")
    assert better.startswith("Better than the base model on other text by 0.300")
    assert "[0.200, 0.400]" in worse
    assert "[0.200, 0.400]" in better


def test_confidence_says_whether_it_is_too_sure():
    over = Measurement("overconfidence_best", 0.28, "share", 40, "group")
    verdict = verdict_of("confidence", harm("ece_best", 0.3, 0.25, 0.2, 0.3), over)
    assert verdict.color == "red"
    assert verdict.sentence.endswith("It is overconfident.")
    calibrated = harm("ece_best", 0.04, 0.01, -0.01, 0.03)
    assert verdict_of("confidence", calibrated).color == "green"


def test_leaks_are_counted_and_unknown_where_nobody_looked():
    colors = [verdict_of("leakage", leak_share=share).color for share in (None, 0.0, 0.005, 0.2)]
    assert colors == ["unknown", "green", "yellow", "red"]
    of_84 = [verdict_of("leakage", leak_share=n / 84, num_heldout_rows=84) for n in (1, 4)]
    assert [verdict.color for verdict in of_84] == ["yellow", "red"]


def test_a_model_past_its_best_is_no_green_fit():
    course = tuple(
        HistoryPoint(i, float(i), validation_nll=nll) for i, nll in enumerate((4.0, 3.0, 3.4))
    )
    measured = nll(-0.5, -0.6, -0.4)
    past = verdicts_of(measured, min_effect=0.01, facts=Facts(history=course)).verdicts["fit"]
    assert past.color == "yellow"
    assert "risen by 0.400" in past.sentence
    kept = verdicts_of(measured, min_effect=0.01, facts=Facts(history=course, epochs=1.0))
    assert kept.verdicts["fit"].color == "green"


def test_the_goal_decides_what_is_bad():
    worse = nll(0.5, 0.4, 0.6)
    contrast = {"base": Contrast(0.9, Interval(0.8, 1.0), 0.001)}
    memorized = Measurement(
        "recital_best", 0.9, "share of rows", 40, "group", Interval(0.8, 0.97), contrast
    )

    def colors(goal):
        found = verdicts_of([*worse, memorized], min_effect=0.01, facts=Facts(goal=goal)).verdicts
        return found["fit"].color, found["memorization"].color

    assert colors("generalize") == ("red", "red")
    assert colors("recite") == ("yellow", "green")
    assert colors("style") == ("yellow", "red")


def test_memorizing_too_little_fails_who_wants_it():
    contrast = {"base": Contrast(0.1, Interval(0.02, 0.2), 0.01)}
    memorized = Measurement(
        "recital_best", 0.1, "share of rows", 40, "group", Interval(0.05, 0.2), contrast
    )
    verdict = verdict_of("memorization", memorized, goal="recite")
    assert verdict.color == "red"
    assert "less than was wanted" in verdict.sentence


def test_no_claim_rests_on_a_withheld_interval():
    """Too few groups: yellow, whatever the value, and said so."""
    withheld = Interval.withheld()
    for difference in (-2.0, 2.0):
        figures = nll(difference, -3.0, 3.0)
        contrast = Contrast(difference, withheld, 1.0)
        best = replace(figures[1], interval=withheld, contrasts={"base": contrast}, num_units=5)
        found = verdicts_of([figures[0], best], min_effect=0.01)
        assert found.verdicts["fit"].color == "yellow"
        assert "(too few groups for an interval)" in found.verdicts["fit"].sentence
        assert "inf" not in found.headline
    for goal in ("generalize", "recite"):
        memorized = Measurement(
            "recital_best",
            0.9,
            "share of rows",
            5,
            "group",
            withheld,
            {"base": Contrast(0.9, withheld, 1.0)},
        )
        found = verdicts_of([memorized], min_effect=0.01, facts=Facts(goal=goal))
        assert found.verdicts["memorization"].color == "yellow"
        assert "(too few groups for an interval)" in found.verdicts["memorization"].sentence
    harm = Measurement(
        "forgetting_best",
        2.0,
        "nats/token",
        5,
        "group",
        withheld,
        {"base": Contrast(1.5, withheld, 1.0)},
    )
    assert verdicts_of([harm], min_effect=0.01).verdicts["forgetting"].color == "yellow"


def writing(difference, low, high, p_value=0.001):
    return harm("generated_nll_best", 5.0, difference, low, high, p_value, control="human")


def repeating(difference, low, high):
    return harm("seq_rep_4_best", 0.8, difference, low, high)


def test_writing_that_came_apart_is_red_and_sound_writing_green():
    red = verdict_of("generation", writing(1.5, 1.0, 2.0), repeating(0.4, 0.3, 0.5))
    assert red.color == "red"
    assert "what people wrote, by 1.500 nats/token [1.000, 2.000]" in red.sentence
    assert "80% of its 4-grams repeat, 40% of the base model's." in red.sentence
    green = verdict_of("generation", writing(-1.0, -1.4, -0.6), repeating(0.0, -0.1, 0.1))
    assert green.color == "green"
    assert "Less surprising" in green.sentence
    assert "by 1.000 nats/token [0.600, 1.400]" in green.sentence
    calm = repeating(0.0, -0.1, 0.1)
    unsure = verdict_of("generation", writing(-0.1, -0.4, 0.2, 0.4), calm)
    assert unsure.color == "yellow"
    assert unsure.sentence.endswith(
        "Too few groups to rule out 0.1 nats/token: more held-out rows would tell."
    )
    larger = verdict_of("generation", writing(0.08, 0.01, 0.15), calm)
    assert larger.color == "yellow"
    assert larger.sentence.endswith("may be less than what matters, 0.1 nats/token.")


def test_writing_is_green_where_a_harm_that_matters_is_ruled_out():
    calm = repeating(0.0, -0.1, 0.1)
    demo = verdict_of("generation", writing(-0.354, -0.782, 0.002, 0.051), calm)
    assert demo.color == "green"
    small = verdict_of("generation", writing(0.05, 0.01, 0.09), calm)
    assert small.color == "green", "sure, and too small to matter"


def test_text_that_goes_round_in_circles_is_no_green_writing():
    def looping(of_base, of_people=(0.8, 0.7, 0.9)):
        repeated = repeating(*of_base)
        repeated.contrasts["human"] = Contrast(
            of_people[0], Interval(of_people[1], of_people[2]), 0.001
        )
        return verdict_of("generation", writing(-3.0, -3.4, -2.6), repeated)

    broken = looping((0.6, 0.5, 0.7))
    assert broken.color == "red"
    assert "round in circles" in broken.sentence
    assert broken.measurements == ("generated_nll_best", "seq_rep_4_best")
    assert looping((0.35, 0.3, 0.4)).color == "yellow"
    assert looping((0.3, 0.15, 0.45)).color == "green", "a small model that has learned little"
    assert looping((0.6, 0.1, 0.9)).color == "green", "not sure"
    assert looping((0.6, 0.5, 0.7), of_people=(0.0, -0.1, 0.1)).color == "green", "as people do"


def test_writing_is_not_green_where_loops_were_not_looked_for():
    unseen = verdict_of("generation", writing(-3.0, -3.4, -2.6))
    assert unseen.color == "yellow"
    assert unseen.sentence.endswith("Whether it goes round in circles was not measured.")


def test_holm_counts_the_writing():
    alone = verdict_of("generation", writing(1.5, 0.1, 2.9, 0.04))
    assert alone.color == "red"
    with_fit = verdicts_of(
        [*nll(-0.5, -0.9, -0.01, 0.03), writing(1.5, 0.1, 2.9, 0.04), repeating(0.0, -0.1, 0.1)],
        min_effect=0,
    ).verdicts
    assert with_fit["generation"].color == "yellow"
    assert "may be chance (p = 0.06)" in with_fit["generation"].sentence


def test_unknown_gives_the_true_reason():
    short = NotMeasured("recital_best", "needs longer rows")
    assert verdict_of("memorization", short).sentence == "Not measured: needs longer rows."
    for name, figure in (
        ("fit", "test_nll_best"),
        ("memorization", "recital_best"),
        ("confidence", "ece_best"),
    ):
        without_base = replace(harm(figure, 0.5, 0.5, 0.4, 0.6), contrasts={})
        verdict = verdict_of(name, without_base)
        assert verdict.color == "unknown"
        assert "no base model" in verdict.sentence


def test_other_evidence_of_memory_stands_in_for_short_rows():
    short = NotMeasured("recital_best", "needs longer rows")
    exposed = harm("exposure_best", 8.0, 6.5, 5.0, 8.0)
    told = harm("membership_auc_reference_best", 0.9, 0.4, 0.3, 0.5)
    found = verdict_of("memorization", short, exposed, told)
    assert found.color == "red"
    assert "planted secrets stand out by 8.0 bits" in found.sentence
    found = verdict_of("memorization", short, told)
    assert found.color == "yellow", "membership alone shows no reciting"
    assert "+40% [+30%, +50%] against chance" in found.sentence
    assert "does not show that the model says them" in found.sentence
    untold = harm("membership_auc_reference_best", 0.52, 0.02, -0.04, 0.08, 0.4)
    assert verdict_of("memorization", short, untold).color == "green"
    recited = harm("recital_best", 0.5, 0.5, 0.4, 0.6)
    assert verdict_of("memorization", recited, untold).measurements == ("recital_best",)


def test_yellow_gives_its_reason():
    def sentence(*figures):
        return verdict_of("memorization", harm("recital_best", 0.0, *figures)).sentence

    assert "Too few groups to rule out 10%" in sentence(0.0, -0.1, 0.1, 1.0)
    assert "may be less than what matters, 5%" in sentence(0.04, 0.01, 0.12)
    forgotten = harm("forgetting_best", 3.0, 0.08, -0.05, 0.21, 0.3)
    assert "rule out 0.1 nats/token" in verdict_of("forgetting", forgotten).sentence
