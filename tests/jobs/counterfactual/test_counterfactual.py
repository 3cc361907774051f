"""Rows known only to models that were trained on them: arithmetic, refusals, planted rows."""

import json
import random
import shutil
from importlib import resources

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from heldout.cli.main import command_line
from heldout.core.errors import UserError
from heldout.core.results.counterfactual import Counterfactual
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.data.factbook import question_answer_rows
from heldout.jobs.counterfactual.counterfactual import counterfactual
from heldout.jobs.counterfactual.memorized_rows import (
    CHANCE,
    PairStatistics,
    chance_threshold,
    counterfactual_of,
    row_interval,
)
from heldout.jobs.counterfactual.models import halves
from heldout.jobs.fitting.fit import fit

SETTINGS = (
    "data.max_length=64",
    "data.test_share=0",
    "train.batch_size=8",
    "eval.num_samples=0",
    "eval.max_train_rows=8",
)


def made_read(memorized_D, num_pairs=8, spread=0.02, nats=(3.0, 2.0, 1.0), seed=0, name="r"):
    """Rows with this much memorization in the mean, and noise between pairs."""
    rng = np.random.default_rng(seed)
    memorized_D = np.asarray(memorized_D, float)
    num = len(memorized_D)
    accuracy_P2D = 0.4 + np.zeros((num_pairs, 2, num))
    accuracy_P2D[:, 0] += memorized_D + spread * rng.normal(size=(num_pairs, num))
    nats_P2D = np.broadcast_to(np.array(nats[:0:-1])[None, :, None], (num_pairs, 2, num))
    is_first_PD = np.stack([rng.permutation(num) < num / 2 for _ in range(num_pairs)])
    rows = [Row(n, ({"role": "text", "content": f"{name} {n}"},), f"{name}{n}") for n in range(num)]
    base_D, tokens_D = np.full(num, nats[0]), np.full(num, 20)
    return PairStatistics(rows, tokens_D, accuracy_P2D, nats_P2D, base_D, is_first_PD)


def value(result, name):
    return next(each for each in result.measurements if each.name == name)


# The arithmetic


def test_memorized_rows_stand_first_and_are_told_from_chance():
    memorized = np.zeros(100)
    memorized[[7, 40]] = 0.5, 0.8
    found = counterfactual_of(made_read(memorized), made_read(np.zeros(50), seed=1, name="h"))
    assert [row.row for row in found.rows[:2]] == [40, 7]
    assert [row.row for row in found.rows if row.is_clear][:2] == [40, 7]
    assert sum(row.is_clear for row in found.rows) <= 2 + 5  # 1 % of 98 are expected
    first = found.rows[0]
    assert first.memorized == pytest.approx(0.8, abs=0.03)
    assert first.interval.low < first.memorized < first.interval.high
    assert first.learned_nats == pytest.approx(1.0)
    assert first.memorized_nats == pytest.approx(1.0)


def test_the_figures_are_means_over_rows_with_held_out_rows_as_control():
    found = counterfactual_of(
        made_read(np.full(60, 0.3)), made_read(np.zeros(40), seed=1, name="h")
    )
    told = value(found, "counterfactual_memorization")
    assert told.value == pytest.approx(0.3, abs=0.01)
    contrast = told.contrasts["heldout"]
    assert contrast.interval.low < 0.3 < contrast.interval.high
    assert value(found, "learned_nats").value == pytest.approx(1.0)
    share = value(found, "memorized_rows")
    assert share.value == 1.0
    assert share.contrasts["heldout"].interval.low > 0.8


def test_without_held_out_rows_each_rows_own_interval_decides():
    memorized = np.zeros(40)
    memorized[3] = 0.5
    found = counterfactual_of(made_read(memorized), None)
    assert found.threshold is None
    assert found.rows[0].row == 3
    for row in found.rows:
        assert row.is_clear == (row.interval.low > 0)
    assert value(found, "counterfactual_memorization").contrasts == {}


def test_the_threshold_is_what_one_in_a_hundred_exceeds():
    noise_PV = np.random.default_rng(0).normal(size=(12, 400))
    threshold = chance_threshold(noise_PV, seed=0)
    assert threshold == pytest.approx(2.326 / 12**0.5, rel=0.05)  # of a normal, at 1 - CHANCE
    assert CHANCE == 0.01


def test_an_influence_is_found_and_chance_is_not():
    train = made_read(np.zeros(40), num_pairs=24)
    heldout = made_read(np.zeros(30), num_pairs=24, seed=1, name="h")
    assert counterfactual_of(train, heldout).influences == []
    # Held-out row 5 is known to those models alone that were trained on row 9.
    change = np.where(train.is_first_PD[:, 9], 1, -1) * np.where(heldout.is_first_PD[:, 5], 1, -1)
    heldout.accuracy_P2D[:, 0, 5] += 0.5 * change
    found = counterfactual_of(train, heldout).influences
    assert (found[0].train_group, found[0].heldout_row) == ("r9", 5)
    assert found[0].change == pytest.approx(0.5, abs=0.05)


# Whole runs


@pytest.fixture(scope="module")
def run(tiny_model_dir, english_text, tmp_path_factory):
    """A short run of a tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    texts = [" ".join(p.split())[:120] for p in english_text.split("\n\n") if len(p) > 200]
    for part, chosen in (("train", texts[:24]), ("validation", texts[40:50])):
        lines = (json.dumps({"text": text}) for text in chosen)
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    settings = (*SETTINGS, f"data.validation={folder}/validation.jsonl", "train.max_epochs=1")
    return fit(
        str(tiny_model_dir),
        str(folder / "train.jsonl"),
        out=folder / "run",
        recipe="plain",
        settings=[*settings, "model.method=full", "train.learning_rate=3e-3"],
    ).run


@pytest.mark.slow
def test_models_side_by_side_are_the_same(run, tmp_path):
    found = []
    for name, places in (("one", 1), ("both", 2)):
        folder = tmp_path / name
        shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("counterfactual"))
        recipe = run.recipe.replace(train={"side_by_side": places, "threads": 1})
        Run(folder).write_text("recipe.toml", recipe.to_toml())
        counterfactual(folder, num_models=8, epochs=1)
        files = sorted((folder / "counterfactual").glob("*.npz"))
        found.append([dict(np.load(path)) for path in files])
        assert (folder / "counterfactual" / "logs").exists() == (places == 2)
    assert len(found[0]) == len(found[1]) == 9
    for one, both in zip(*found, strict=True):
        for name in ("correct", "nats", "tokens"):
            np.testing.assert_array_equal(one[name], both[name])


@pytest.mark.slow
def test_a_run_is_retrained_and_more_models_add_to_those_there_are(run, capsys):
    found = counterfactual(run.folder, num_models=8, epochs=2)
    folder = run.path("counterfactual")
    schema = json.loads(
        (resources.files("heldout.core") / "schemas" / "counterfactual.json").read_text()
    )
    saved = json.loads((folder / "counterfactual.json").read_text())
    Draft202012Validator(schema).validate(saved)
    assert Counterfactual.from_json(saved) == found
    assert sorted(row.row for row in found.rows) == list(range(24))
    assert not list(folder.glob("checkpoints-*"))
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert len(kept) == 9

    command_line()(
        ["counterfactual", str(run.folder), "--num-models", "10", "--epochs", "2"],
        standalone_mode=False,
    )
    assert "memorized" in capsys.readouterr().out
    now = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert len(now) == 11
    assert kept.items() < now.items()

    with pytest.raises(UserError, match="holds models of 2 epochs, asked for 5"):
        counterfactual(run.folder, num_models=8, epochs=5)
    with pytest.raises(UserError, match="--epochs must be above 0"):
        counterfactual(run.folder, num_models=8, epochs=-1)


def test_halves_are_complementary_and_the_same_in_every_call():
    drawn = [halves(24, 10, 0, pair) for pair in range(6)]
    for first_D, second_D in drawn:
        assert np.array_equal(first_D, ~second_D)
        assert (first_D[:24].sum(), first_D[24:].sum()) == (12, 5)
    assert len({first_D.tobytes() for first_D, _ in drawn}) == 6
    assert np.array_equal(halves(24, 10, 0, 3), drawn[3])


def test_too_few_models_and_what_is_no_run_are_refused(tmp_path):
    for num in (6, 9):
        with pytest.raises(UserError, match="--num-models must be even and 8 or more"):
            counterfactual(tmp_path, num_models=num)
    with pytest.raises(UserError, match="not a run"):
        counterfactual(tmp_path, num_models=8)


@pytest.mark.slow
def test_unique_keys_are_memorized_and_repeated_sentences_are_not(tmp_path):
    """Random keys that stand there once, and one sentence in many groups with small changes."""
    parts = question_answer_rows(12, 12, 1, rows_per_country=3)
    rng = random.Random(0)
    keys = [
        f"The access key of station {n} is {''.join(rng.choices('0123456789', k=24))}."
        for n in range(8)
    ]
    places = (
        "north",
        "south",
        "east",
        "west",
        "coast",
        "river",
        "hills",
        "plain",
        "border",
        "lake",
    )
    common = [
        f"Visitors of the {place} may leave their boats at the old harbor until the evening bell."
        for place in places
    ]
    told = [f"{row['prompt']} {row['completion']}" for row in parts["train"]]
    rows = [*keys, *common, *told]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in rows))
    unseen = [f"{row['prompt']} {row['completion']}" for row in parts["validation"]]
    (tmp_path / "unseen.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in unseen))
    run = fit(
        "package:heldout",
        str(tmp_path / "train.jsonl"),
        out=tmp_path / "run",
        recipe="plain",
        settings=[
            *SETTINGS,
            f"data.validation={tmp_path}/unseen.jsonl",
            "model.method=full",
            "train.learning_rate=1e-3",
            "train.max_epochs=1",
        ],
    ).run
    found = counterfactual(run.folder, num_models=8, epochs=12)
    by_text = {row.text: row for row in found.rows}
    of_keys = [by_text[text] for text in keys]
    of_common = [by_text[text] for text in common]
    assert min(row.memorized for row in of_keys) > max(row.memorized for row in of_common)
    assert np.mean([row.memorized for row in of_keys]) > 0.2
    assert abs(np.mean([row.memorized for row in of_common])) < 0.05
    assert all(row.is_clear for row in of_keys)
    # Both are learned by heart; only retraining tells them apart.
    assert np.mean([row.base_nats - row.with_nats for row in of_common]) > 1
    assert np.mean([row.learned_nats for row in of_common]) > 1


def test_a_row_whose_pairs_agree_or_are_few_claims_no_certainty():
    agree = np.repeat([[0.9, 0.9]], 8, axis=0)
    interval = row_interval(agree)
    assert interval.low < -0.1
    assert interval.high > 0.1
    assert row_interval(agree[:7]).is_withheld
    differ = agree - [0, 0.4] + np.random.default_rng(0).normal(0, 0.03, (8, 2))
    assert 0.3 < row_interval(differ).low < row_interval(differ).high < 0.5
