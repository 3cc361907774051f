"""Answers in doubt: known answers for the statistics, planted swaps for the whole."""

import json
import random

import numpy as np
import pytest

from heldout.core.errors import UserError
from heldout.core.measurement import NotMeasured
from heldout.core.results.check import CheckResult
from heldout.core.row import Row
from heldout.data.factbook import question_answer_rows
from heldout.jobs.checking.check import check
from heldout.jobs.checking.label_noise import (
    NOMINAL_SHARE,
    NUM_OTHERS,
    PromptLosses,
    find_doubtful,
    find_far_off,
)


def asked(number, prompt, answer, group=None):
    messages = (
        {"role": "prompt", "content": prompt},
        {"role": "completion", "content": answer},
    )
    return Row(number, messages, group or f"g{number}")


def losses(excess_bits, num_tokens=10, spread=0.2, seed=0):
    """Losses with this much more after the own prompt than after others, in bits per token."""
    rng = np.random.default_rng(seed)
    excess_D = np.asarray(excess_bits, float)
    num = len(excess_D)
    rows = [asked(n, f"q{n}", f"a{n}") for n in range(num)]
    foreign_DM = num_tokens * np.log(2) * (4 + spread * rng.normal(size=(num, NUM_OTHERS)))
    own_D = foreign_DM.mean(axis=1) + num_tokens * np.log(2) * excess_D
    losses_DF = np.column_stack([own_D, foreign_DM])
    return PromptLosses(
        rows,
        np.ones(num, bool),
        losses_DF,
        losses_DF,
        np.full(num, num_tokens),
        np.array([row.group for row in rows]),
    )


def where(found):
    return {row.index: f"line {row.index + 1}" for row in found.rows}


# The statistics


def test_swapped_answers_are_found_worst_first():
    excess = np.full(200, -0.5)
    excess[[7, 30, 31]] = 0.1, 0.3, 0.2
    found = losses(excess)
    doubtful, told, swapped, measured = find_doubtful(found, where(found))
    assert [(each.row, each.where) for each in doubtful] == [
        (30, "line 31"),
        (31, "line 32"),
        (7, "line 8"),
    ]
    assert [each.excess_bits for each in doubtful] == pytest.approx([0.3, 0.2, 0.1], abs=1e-4)
    assert told == pytest.approx(excess, abs=1e-4)
    information, share = measured
    assert information.value == pytest.approx(-excess.mean())
    assert share.value == 3 / 200
    # Swapped on purpose, the own prompt is one like the others.
    assert 0.4 < np.mean(np.array(swapped) > 0) < 0.6
    control = share.contrasts["answers swapped on purpose"]
    assert control.difference == pytest.approx(share.value - np.mean(np.array(swapped) > 0))
    assert control.interval.high < 0


@pytest.mark.parametrize("seed", range(5))
def test_no_data_has_more_in_doubt_than_the_nominal_share(seed):
    excess = np.random.default_rng(seed).normal(-0.3, 0.3, size=200)  # a sixth lies above 0
    found = losses(excess, seed=seed)
    doubtful, *_ = find_doubtful(found, where(found))
    assert 0 < len(doubtful) <= NOMINAL_SHARE * 200
    worst = np.argsort(-excess)[: len(doubtful)]
    assert [each.row for each in doubtful] == worst.tolist()


def test_prompts_that_tell_nothing_put_no_answer_in_doubt():
    found = losses(np.random.default_rng(1).normal(0, 0.3, size=200))
    doubtful, _, _, measured = find_doubtful(found, where(found))
    assert doubtful == []
    assert isinstance(measured[-1], NotMeasured)
    assert "the prompts tell too little" in measured[-1].reason


def test_few_groups_judge_nothing():
    found = losses(np.full(20, -0.5))
    doubtful, told, _, measured = find_doubtful(found, where(found))
    assert (doubtful, told) == ([], [])
    assert {type(each) for each in measured} == {NotMeasured}


def test_a_loss_far_off_before_and_after_is_told_one_of_the_two_is_not():
    found = losses(np.random.default_rng(0).normal(0, 0.05, size=300))
    found.base_DF[[5, 6], 0] *= 8
    found = PromptLosses(
        found.rows,
        found.has_foreign_D,
        found.base_DF,
        found.base_DF.copy(),
        found.num_tokens_D,
        found.groups_D,
    )
    found.out_of_fold_DF[6, 0] /= 8  # learned from the others
    found.out_of_fold_DF[9, 0] *= 8
    assert set(find_far_off(found)) == {5}
    assert "bits per token under the base model" in find_far_off(found)[5]


# The whole


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_check_with_cross_validation(tmp_path, tiny_model_dir):
    rows = [{"prompt": f"Say {n}:", "completion": " " + "yes no"[: 3 + n % 3]} for n in range(40)]
    path = written(tmp_path / "train.jsonl", rows)
    settings = ["data.max_length=64", "train.learning_rate=1e-3", "train.max_epochs=1"]
    found = check(path, model=str(tiny_model_dir), cross_validate=2, settings=settings)
    noise = found.label_noise
    assert noise is not None
    assert (noise.num_rows, noise.num_judged, noise.num_folds, noise.epochs) == (40, 40, 2, 1.0)
    assert len(noise.excess_bits) == len(noise.swapped_excess_bits) == 40
    assert CheckResult.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_what_cannot_be_judged_is_told_and_the_check_goes_on(tmp_path, tiny_model_dir):
    path = written(
        tmp_path / "train.jsonl", [{"prompt": f"Say {n}", "completion": "yes"} for n in range(12)]
    )
    found = check(path, model=str(tiny_model_dir), cross_validate=5, learning_curve=True)
    missing = {each.name: each for each in found.measurements if isinstance(each, NotMeasured)}
    assert "12 were read" in missing["doubtful_answers"].reason
    assert "learning curve needs" in missing["learning_curve"].reason
    assert found.label_noise is None
    assert found.learning_curve is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cross_validate": 5}, "--cross-validate is measured with a model"),
        ({"learning_curve": True}, "--learning-curve is measured with a model"),
        ({"cross_validate": 1, "model": "m"}, "--cross-validate must be 2 folds or more, got 1"),
    ],
)
def test_options_that_cannot_work_are_refused(tmp_path, options, message):
    path = written(tmp_path / "train.jsonl", [{"text": "one"}])
    with pytest.raises(UserError, match=message):
        check(path, **options)


@pytest.mark.slow
def test_check_with_a_learning_curve(tmp_path, tiny_model_dir, english_text):
    words = english_text.split()
    texts = [" ".join(words[at : at + 12]) for at in range(0, 3000, 12)]
    path = written(tmp_path / "train.jsonl", [{"text": text} for text in texts])
    settings = ["data.max_length=64", "train.learning_rate=3e-3", "train.max_epochs=1"]
    found = check(path, model=str(tiny_model_dir), learning_curve=True, settings=settings)
    curve = found.learning_curve
    assert curve is not None, found.measurements
    assert len(curve.points) == 12
    assert curve.num_groups >= 30
    smallest, largest = curve.points[0], curve.points[3]
    assert largest.nats_per_token < smallest.nats_per_token < curve.base_nats_per_token
    assert CheckResult.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.slow
def test_planted_swaps_of_real_answers(tmp_path):
    """300 real questions, a tenth of the answers swapped: what docs/check.md tells."""
    rows = question_answer_rows(
        num_train_countries=100,
        num_validation_countries=1,
        num_test_countries=1,
        rows_per_country=3,
    )["train"]
    chosen = random.Random(0).sample(range(len(rows)), 30)
    answers = [rows[place]["completion"] for place in chosen]
    for place, answer in zip(chosen, answers[1:] + answers[:1], strict=True):
        rows[place]["completion"] = answer
    found = check(
        written(tmp_path / "train.jsonl", rows),
        model="package:heldout",
        cross_validate=3,
        settings=["data.group=group", "model.method=full", "data.max_length=256"],
    )
    noise = found.label_noise
    assert noise is not None
    told = [each.row for each in noise.doubtful]
    right = len(set(told) & set(chosen))
    print(f"{len(told)} told, {right} right; {noise.measurements}")
    assert len(told) <= NOMINAL_SHARE * len(rows)
    # By chance a tenth of what is told would be right.
    assert right >= 0.3 * len(told)
    excess = np.array(noise.excess_bits)
    order = np.argsort(excess)
    rank = np.empty(len(rows))
    rank[order] = np.arange(len(rows))
    area = (rank[chosen].sum() - 30 * 29 / 2) / (30 * 270)
    assert area > 0.65
