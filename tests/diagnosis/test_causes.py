"""Rules on what a training really left behind, and their arithmetic on made-up weights."""

import math
from dataclasses import replace

import pytest
import torch

from heldout.core.facts import Facts, HistoryPoint, SetupFault
from heldout.core.measurement import Contrast, Interval, Measurement
from heldout.core.probe import Evidence
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.data.factbook import question_answer_rows
from heldout.diagnosis.causes import CauseRule, Clue, find_causes, read_rules, weigh
from heldout.diagnosis.features import FEATURES, feature_of
from heldout.diagnosis.remedies import remedies_for
from heldout.diagnosis.verdicts import verdicts_of
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.prepare import prepare
from heldout.jobs.kit.target import Target
from heldout.lm.tokenize import collate, tokenize_row
from heldout.probes.generalization_gap import GeneralizationGap
from heldout.probes.heldout_loss import HeldoutLoss
from heldout.training.steps import Steps

EPOCHS = 7


def rows(part, num):
    found = question_answer_rows(12, 1, 12, 2)[part]
    return [
        Row(
            place,
            (
                {"role": "prompt", "content": entry["prompt"]},
                {"role": "completion", "content": entry["completion"]},
            ),
            entry["group"],
        )
        for place, entry in enumerate(found[:num])
    ]


@pytest.fixture(scope="module")
def planted():
    """Measurements and facts of the embedded model after each epoch on 24 rows."""
    torch.manual_seed(0)
    recipe = Recipe().replace(data={"max_length": 128}, model={"method": "full"})
    loaded = Target("package:heldout").load(recipe)
    model, tokenizer = prepare(loaded, recipe), loaded.tokenizer
    parts = {"train": rows("train", 24), "test": rows("test", 24)}
    windows = [w for row in parts["train"] for w in tokenize_row(row, tokenizer, 128).windows]
    steps = Steps(model, [])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses, history, found = {}, [], []
    for epoch in range(EPOCHS + 1):
        for start in range(0, len(windows) if epoch else 0, 4):
            steps.gradient([collate(windows[start : start + 4], tokenizer.pad_token_id)])
            optimizer.step()
            optimizer.zero_grad()
        for part, texts in parts.items():
            losses["best", part] = losses_of(model, tokenizer, texts, recipe)
        if not epoch:
            losses |= {("base", part): losses["best", part] for part in parts}
        heldout = losses["best", "test"].nats_per_token
        history.append(HistoryPoint(4 * epoch, float(epoch), validation_nll=heldout))
        evidence = Evidence(dict(losses))
        measurements = [*HeldoutLoss().measure(evidence), *GeneralizationGap().measure(evidence)]
        facts = Facts(
            epochs=float(epoch),
            history=tuple(history),
            num_train_rows=24,
            duplicate_share=0.0,
            leak_share=0.0,
            extra={"shift": 0.0},
        )
        found.append((measurements, facts))
    return found


def names(measurements, facts):
    return [cause.name for cause in find_causes(measurements, facts)]


def test_a_model_trained_past_its_best_is_told_so_first(planted):
    measurements, facts = planted[-1]
    cause = find_causes(measurements, facts)[0]
    assert cause.name == "too_many_epochs"
    assert cause.confidence > 0.5
    lowest = min(facts.history, key=lambda point: point.validation_nll)
    assert f"epoch {lowest.epoch:.2g}" in " ".join(cause.evidence_for)


def test_the_same_training_at_its_best_epoch_is_not(planted):
    losses = [facts.history[-1].validation_nll for _, facts in planted]
    measurements, facts = planted[losses.index(min(losses))]
    assert "too_many_epochs" not in names(measurements, facts)


def test_an_impostor_silences_every_claim_of_overfitting(planted):
    measurements, facts = planted[-1]
    for check in ("eos_lost", "masking_broken", "doubled_bos", "tokenizer_mismatch"):
        spoiled = replace(facts, checks=(SetupFault(check, "found", "seen in the rows"),))
        (cause,) = find_causes(measurements, spoiled)
        assert cause.name == check
        assert cause.evidence_for == ("seen in the rows",)
    assert names(measurements, replace(facts, leak_share=0.3)) == ["validation_leaked"]


def test_an_unknown_check_neither_names_nor_silences(planted):
    measurements, facts = planted[-1]
    unknown = replace(facts, checks=(SetupFault("eos_lost", "unknown", "no rows"),))
    assert find_causes(measurements, unknown) == find_causes(measurements, facts)


def test_without_evidence_nothing_is_named():
    assert find_causes([], Facts()) == ()
    for rule in read_rules().rules:
        assert weigh(rule, {}, Facts()).score == rule.prior < 0


def test_missing_evidence_lowers_the_confidence(planted):
    measurements, facts = planted[-1]
    whole = find_causes(measurements, facts)[0]
    less = find_causes(measurements, replace(facts, epochs=None))[0]
    assert whole.name == less.name == "too_many_epochs"
    assert less.confidence < whole.confidence


def test_whoever_wants_it_memorized_hears_of_no_overfitting(planted):
    measurements, facts = planted[-1]
    kinds = {rule.name: rule.kind for rule in read_rules().rules}
    named = names(measurements, replace(facts, goal="recite"))
    assert "too_many_epochs" not in named
    assert {kinds[name] for name in named} <= {"impostor", "other", "overfitting"}


def test_weights_add_up():
    clues = (
        Clue("epochs", 3.0, 2.0, above=4.0, says="{value:g} epochs", denies="only {value:g}"),
        Clue("duplicate_share", 1.5, 0.5, below=0.1, says="few", denies="{value:.0%} repeated"),
        Clue("leak_share", 9.0, 9.0, above=0.1),
    )
    rule = CauseRule("made_up", "other", ("generalize",), -2.5, "", "", clues)
    both = weigh(rule, {}, Facts(epochs=4.0, duplicate_share=0.0))
    assert math.isclose(both.score, -2.5 + 3.0 + 1.5)
    assert both.evidence_for == ("4 epochs", "few")
    neither = weigh(rule, {}, Facts(epochs=3.9, duplicate_share=0.1))
    assert math.isclose(neither.score, -2.5 - 2.0 - 0.5)
    assert neither.evidence_against == ("only 3.9", "10% repeated")


def test_confidence_lies_on_the_line_between_the_rows_of_the_table():
    rules = replace(read_rules(), scores=(0.0, 2.0), shares=(0.5, 0.9))
    assert [rules.confidence(score) for score in (0, 1, 2, 7)] == [0.5, 0.7, 0.9, 0.9]


def gap_and_loss(change, gap):
    def contrast(value):
        return {"base": Contrast(value, Interval(value - 0.02, value + 0.02), 0.001)}

    return [
        Measurement("test_nll_base", 4.0, "nats/token", 40, "group"),
        Measurement(
            "test_nll_best", 4.0 + change, "nats/token", 40, "group", None, contrast(change)
        ),
        Measurement("generalization_gap_best", gap, "nats/token", 40, "group", None, contrast(gap)),
    ]


def test_features_of_measurements():
    measured = {m.name: m for m in gap_and_loss(-0.3, 0.2)}
    values = {name: feature(measured, Facts()) for name, feature in FEATURES.items()}
    assert math.isclose(values["train_gain"], 0.5)
    assert math.isclose(values["kept_share"], 0.6)
    assert math.isclose(values["learned_share"], 0.125)
    assert math.isclose(values["gap_surely"], 0.18)


def course(*losses, errors=()):
    errors = errors or [None] * len(losses)
    return Facts(
        history=tuple(
            HistoryPoint(10 * i, float(i), validation_nll=loss, validation_error=error)
            for i, (loss, error) in enumerate(zip(losses, errors, strict=True))
        )
    )


def test_features_of_the_course():
    facts = course(4.0, 3.5, 3.7, errors=(None, None, 0.05))
    assert math.isclose(feature_of("rise")({}, facts), 0.2)
    assert math.isclose(feature_of("rise_surely")({}, facts), 0.1)
    assert feature_of("best_epoch")({}, facts) == 1.0
    kept = replace(facts, epochs=1.0)
    assert feature_of("rise")({}, kept) == 0.0
    assert math.isclose(feature_of("later_rise")({}, kept), 0.2)
    straight = course(4.0, 3.9, 3.8, 3.7)
    assert math.isclose(feature_of("late_gain_share")({}, straight), 1 / 3)
    assert feature_of("late_gain_share")({}, course(4.0, 3.7, 3.7, 3.7)) == 0.0
    assert math.isclose(feature_of("first_epoch_rise")({}, course(4.0, 4.2, 4.1)), 0.2)


def test_without_a_log_the_base_tells_that_the_loss_has_risen():
    worse, better = gap_and_loss(0.6, 2.6), gap_and_loss(-0.1, 1.9)
    by_name = {measured.name: measured for measured in worse}
    assert math.isclose(feature_of("unlogged_rise")(by_name, Facts()), 0.58)
    assert feature_of("unlogged_rise")(by_name, course(4.0, 4.6)) is None
    little = {measured.name: measured for measured in gap_and_loss(0.6, 0.9)}
    assert feature_of("unlogged_rise")(little, Facts()) is None  # the rows were hardly learned
    assert [cause.name for cause in find_causes(worse, Facts())] == ["too_many_epochs"]
    assert find_causes(better, Facts()) == ()


def test_a_rise_that_a_log_cannot_tell_is_sure_above_the_base():
    unsure = course(4.0, 3.9, 4.6, errors=(None, None, 0.35))
    worse = {measured.name: measured for measured in gap_and_loss(0.6, 2.6)}
    assert math.isclose(feature_of("rise_surely")({}, unsure), 0.0, abs_tol=1e-9)
    assert math.isclose(feature_of("rise_surely")(worse, unsure), 0.58)
    sure = course(4.0, 3.9, 4.6, errors=(None, None, 0.01))
    assert math.isclose(feature_of("rise_surely")(worse, sure), 0.68)


def test_a_first_epoch_that_may_be_jitter_blames_no_rate():
    def blamed(highest, error):
        facts = course(4.0, highest, 3.5, 3.4, errors=(None, error, None, None))
        return [cause.name for cause in find_causes([], facts)]

    assert blamed(4.2, 0.15) == []
    assert blamed(4.2, 0.05) == ["learning_rate_too_high"]
    assert blamed(7.0, 1.5) == ["learning_rate_too_high"]  # a log of few evaluations cannot tell
    lasting = course(4.0, 4.2, 4.5, 4.6, errors=(None, 0.15, 0.3, 0.35))
    assert feature_of("first_epoch_surely")({}, lasting) == feature_of("first_epoch_rise")(
        {}, lasting
    )


def test_a_lower_loss_afterwards_is_no_rise():
    chosen = replace(course(4.0, 3.6, 3.5), epochs=1.0)  # by a metric of the trainer's own
    assert feature_of("rise")({}, chosen) == 0.0
    assert feature_of("rise_surely")({}, chosen) == 0.0


def test_every_clue_has_a_feature_and_every_rule_a_source():
    for rule in read_rules().rules:
        assert rule.source
        assert rule.test
        for clue in rule.clues:
            feature_of(clue.feature)


def with_recital(measurements, share, low):
    contrast = {"base": Contrast(share, Interval(low, 1.0), 0.001)}
    recital = Measurement("recital_best", share, "share of rows", 40, "group", None, contrast)
    return [*measurements, recital]


def test_a_small_leak_is_told_last_and_silences_nothing(planted):
    measurements, facts = planted[-1]
    leaky = replace(facts, leak_share=5 / 90, num_heldout_rows=90)
    assert names(measurements, leaky) == [*names(measurements, facts), "validation_leaked"]


def test_one_copy_among_many_held_out_rows_is_no_cause(planted):
    measurements, facts = planted[-1]
    leaky = replace(facts, leak_share=1 / 84, num_heldout_rows=84)
    assert names(measurements, leaky) == names(measurements, facts)


def test_no_impostor_explains_rows_that_are_recited(planted):
    measurements, facts = planted[-1]
    leaky = replace(facts, leak_share=0.3)
    recited = names(with_recital(measurements, 0.97, 0.9), leaky)
    assert recited[:2] == ["validation_leaked", "too_many_epochs"]
    assert names(with_recital(measurements, 0.05, 0.0), leaky) == ["validation_leaked"]


def of_forgetting(change, low):
    contrast = {"base": Contrast(change, Interval(low, 2 * change - low), 0.001)}
    return Measurement("forgetting_best", 4.0, "nats/token", 40, "group", None, contrast)


@pytest.mark.parametrize("change", [0.05, 0.3])
def test_red_forgetting_has_a_cause_and_its_remedy(change):
    measurements = [of_forgetting(change, 0.004)]
    verdicts = verdicts_of(measurements, min_effect=0.0)
    assert verdicts.verdicts["forgetting"].color == "red"
    broken_mask = Facts(checks=(SetupFault("masking_broken", "found", "seen"),))
    for facts in (Facts(), broken_mask):
        causes = find_causes(measurements, facts)
        assert "forgetting" in [cause.name for cause in causes]
        assert any(remedy.cause == "forgetting" for remedy in remedies_for(causes, facts))
    assert names([of_forgetting(0.3, -0.01)], Facts()) == []


def test_rows_that_became_harder_are_no_lack_of_training():
    broken = gap_and_loss(2.2, 0.3)  # 5.74 -> 7.96 on held-out text, and worse on its own rows
    assert names(broken, Facts()) == ["learning_rate_too_high"]


def of_writing(surprise, beyond=0.0):
    """What is written surprises by so much, and repeats itself by so much more than both."""

    def contrast(value):
        return Contrast(value, Interval(value - 0.05, value + 0.05), 0.001)

    both = {"base": contrast(beyond), "human": contrast(beyond)}
    return [
        Measurement(
            "generated_nll_best",
            5.0,
            "nats/token",
            40,
            "group",
            None,
            {"human": contrast(surprise)},
        ),
        Measurement("seq_rep_4_best", 0.9, "share", 40, "group", None, both),
    ]


@pytest.mark.parametrize("broken", [of_writing(0.6), of_writing(-2.0, 0.6)])
def test_red_writing_has_a_cause_and_its_remedy(broken):
    facts = Facts(learning_rate=2e-2, epochs=3.0)
    verdicts = verdicts_of(broken, min_effect=0.0)
    assert verdicts.verdicts["generation"].color == "red"
    alone = find_causes(broken, facts, verdicts.verdicts)
    assert [cause.name for cause in alone] == ["collapsed_writing"]
    assert all(cause.evidence_for for cause in alone)
    assert {remedy.cause for remedy in remedies_for(alone, facts)} == {"collapsed_writing"}
    # Nothing was learned of the training rows, or all of them: the rate, or the epochs.
    assert names([*broken, *gap_and_loss(-0.02, 0.02)], facts)[0] == "learning_rate_too_high"
    longer = replace(facts, epochs=40.0)
    assert names([*broken, *gap_and_loss(-0.4, 1.5)], longer)[0] == "too_many_epochs"


def test_what_says_no_more_than_a_light_needs_it_red():
    broken = of_writing(0.6)
    lights = verdicts_of(broken, min_effect=0.0).verdicts
    by_chance = lights | {"generation": replace(lights["generation"], color="yellow")}
    assert find_causes(broken, Facts(), by_chance) == ()


def test_sound_writing_names_no_cause():
    fine = gap_and_loss(-0.5, 0.05)
    for sound in (of_writing(-0.4), of_writing(0.06), of_writing(-2.0, 0.4)):
        assert verdicts_of(sound, min_effect=0.0).verdicts["generation"].color != "red"
        assert names(sound, Facts()) == []
        assert names([*sound, *fine], Facts()) == names(fine, Facts())


def test_weak_regularization_is_not_claimed_where_decay_is_not_known(planted):
    measurements, facts = planted[-1]
    nothing = replace(facts, weight_decay=0.0, dropout=0.0)
    assert "weak_regularization" in names(measurements, nothing)
    for unknown in ({"weight_decay": None}, {"dropout": None}):
        assert "weak_regularization" not in names(measurements, replace(nothing, **unknown))
