"""The search over a recipe's ranges inside a run, on a tiny model and real text."""

import importlib.util
import itertools
import json
from importlib import resources

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from heldout.core.errors import Interrupted, UserError
from heldout.core.progress import Progress
from heldout.core.recipe import load_recipe
from heldout.core.run import Run
from heldout.jobs.fitting.fit import dry_run, fit, resume
from heldout.jobs.kit.find_rate import usual_rate
from heldout.jobs.kit.target import Target
from heldout.search.optuna_sampler import refuse_absent
from heldout.search.recipe_point import with_values

SETTINGS = (
    "train.learning_rate=3e-3",
    "train.max_epochs=1",
    "train.checkpoint_minutes=0",
    "eval.per_epoch=1",
    "eval.max_train_rows=10",
    "eval.max_recital_rows=10",
    "eval.num_samples=1",
    "eval.max_new_tokens=4",
    "data.max_length=48",
    "regularizers.weight_decay.rate=.1",
    "regularizers.early_stopping=false",
    "regularizers.ema.decay=.5",
)
GRIDS = (
    "search.ranges.train.max_epochs=[1, 2, 3]",
    "search.ranges.train.learning_rate=[3e-4, 3e-3, 3e-2]",
    "search.max_trials=12",
)


@pytest.fixture(scope="module")
def data(english_text, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "prose.jsonl"
    found = [" ".join(p.split())[:120] for p in english_text.split("\n\n") if len(p) > 140]
    path.write_text("\n".join(json.dumps({"text": text}) for text in found[:160]))
    return str(path)


class _StopsAfter(Progress):
    """Asks for a stop in the stage of that number whose name begins so."""

    def __init__(self, prefix, number):
        super().__init__()
        self.prefix, self.left, self.notes = prefix, number, []

    def stage(self, name, total=0):
        if name.startswith(self.prefix):
            self.left -= 1
            if self.left == 0:
                raise Interrupted
        return super().stage(name, total)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def tuned(tiny_model_dir, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tuned"
    return fit(str(tiny_model_dir), data, out=out, recipe="full", settings=[*SETTINGS, *GRIDS]).run


@pytest.mark.slow
def test_the_certificate_is_in_the_run_and_what_it_chose_is_trained(tuned):
    found = tuned.read_json("tuning.json")
    schema = resources.files("heldout.core") / "schemas" / "tuning.json"
    Draft202012Validator(json.loads(schema.read_text())).validate(found)
    assert found["is_certified"], found["sentence"]
    recipe = tuned.recipe
    assert recipe == with_values(recipe, found["chosen"]), "the recipe says what was trained"
    assert not recipe.search.ranges
    assert tuned.read_json("result.json")["learning_rate"] == found["chosen"]["train.learning_rate"]
    losses = {tuple(t["point"].values()): t["loss"] for t in found["trials"]}
    assert len(losses) == len(found["trials"]) <= 9
    chosen = losses[tuple(found["chosen"].values())]
    assert found["loss"] == chosen
    for neighbor in found["neighbors"]:
        assert neighbor["verdict"] == "diverged" or neighbor["interval"]["high"] > 0
    assert len(found["neighbors"]) == 4 - len(found["edges"])


@pytest.mark.slow
def test_the_run_repeats_the_chosen_training(tuned):
    last = tuned.history()[-1]
    assert last["epoch"] == tuned.recipe.train.max_epochs
    found = tuned.read_json("tuning.json")
    assert last["validation_nll"] == pytest.approx(found["loss"], rel=1e-6)


@pytest.mark.slow
def test_a_trial_is_what_a_run_with_these_settings_reaches(tiny_model_dir, data, tuned, tmp_path):
    """An independent run at another point than the chosen one."""
    trials = tuned.read_json("tuning.json")["trials"]
    chosen = tuned.read_json("tuning.json")["chosen"]
    other = next(t for t in trials if t["point"] != chosen and t["loss"] is not None)
    at_point = [f"{key}={value}" for key, value in other["point"].items()]
    settings = [*SETTINGS, *at_point]
    alone = fit(str(tiny_model_dir), data, out=tmp_path / "a", recipe="full", settings=settings)
    assert alone.run.history()[-1]["validation_nll"] == pytest.approx(other["loss"], rel=1e-6)


@pytest.mark.slow
def test_an_interrupted_search_goes_on_to_the_same_certificate(
    tiny_model_dir, data, tuned, tmp_path
):
    folder = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        fit(
            str(tiny_model_dir),
            data,
            out=folder,
            recipe="full",
            settings=[*SETTINGS, *GRIDS],
            progress=_StopsAfter("search", 3),
        )
    run = Run.open(folder)
    half = run.read_json("tuning.json")
    assert half["chosen"] is None
    assert len(half["trials"]) == 2
    assert run.recipe.search.ranges, "not yet tuned"
    assert "left out: tuning.json" not in run.path("report.html").read_text()
    ended = resume(folder).run.read_json("tuning.json")
    whole = tuned.read_json("tuning.json")
    assert ended["chosen"] == whole["chosen"]
    assert np.allclose(
        [t["loss"] for t in ended["trials"]], [t["loss"] for t in whole["trials"]], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["search.ranges.train.max_epochs=[2, 3]"], "must lie on search.ranges.train.max_epochs"),
        (["search.ranges.train.max_epoch=[2, 3]"], "did you mean"),
        (["search.ranges.regularizers.mixout.p=[.1, .2]"], "add .regularizers.mixout."),
        (["search.ranges.regularizers.weight_decay.rate=[-1, .1]"], "must be 0 or more, got -1.0"),
        (
            ["augment.masking.rate=.1", "search.ranges.augment.masking.rate=[.1, 2]"],
            "must be between 0 and 1, got 2.0",
        ),
        (["search.ranges.train.learning_rate=[3e-3, 2]"], "above 0 and under 1, got 2.0"),
        (["search.ranges.train.max_epochs=[1, 2]", "data.max_rows=24"], "there are only folds"),
        (["search.ranges.train.max_epochs=[1, 2]", "search.max_trials=1"], "must be 2 or more"),
        (["search.ranges.train.schedule=[constant, linear]"], "moves along lists of rising"),
        (["search.ranges.train.max_epochs={low=1, high=2}"], "moves along lists of rising"),
        (["search.ranges.train.max_epochs=[1, 2]", "search.repeats=1"], "search.repeats cannot"),
        (
            [
                "search.sampler=tpe",
                "search.ranges.train.schedule=[constant, linear]",
                "search.ranges.train.optimizer=[adamw, schedule_free]",
            ],
            "schedule linear, optimizer schedule_free do not go together",
        ),
        (
            ["search.sampler=tpe", "search.ranges.regularizers.wise_ft.used=[true, false]"],
            "wise_ft works on weights that a trial does not keep",
        ),
        (
            [
                "regularizers.rollback=true",
                "regularizers.ema=false",
                "search.sampler=tpe",
                "search.ranges.train.max_epochs=[1, 2]",
            ],
            "rollback puts earlier ones back",
        ),
        (
            ["search.sampler=tpe", "search.ranges.regularizers.r_drp.used=[true, false]"],
            "Unknown regularizer 'r_drp': did you mean 'r_drop'",
        ),
        (
            ["regularizers.early_stopping.patience=2", "search.ranges.train.max_epochs=[1, 2]"],
            "early_stopping keeps another point of the run: leave it out with --set",
        ),
        (
            ["regularizers.wise_ft=true", "search.ranges.train.max_epochs=[1, 2]"],
            "wise_ft keeps another point of the run",
        ),
        (["search.ranges.train.seed=[0, 1]"], "train.seed is no setting to search"),
        (["search.ranges.train.learning_rate=[0, 3e-3]"], "learning_rate must be above 0"),
        (["search.ranges.train.schedule=[1, 2]"], "train.schedule must be one of .*, got 1"),
        (
            [
                "regularizers.weight_decay.rate=10",
                "search.ranges.regularizers.weight_decay.rate=[10, 100]",
                "search.ranges.train.learning_rate=[3e-3, 3e-2]",
            ],
            "times the learning rate 0.03 must be under 1",
        ),
    ],
)
def test_grids_that_cannot_work_are_named_before_anything_is_written(
    tiny_model_dir, data, tmp_path, settings, words
):
    with pytest.raises(UserError, match=words):
        fit(
            str(tiny_model_dir),
            data,
            out=tmp_path / "run",
            recipe="full",
            settings=[*SETTINGS, *settings],
        )
    assert not (tmp_path / "run").exists()


def test_without_optuna_one_line_says_what_to_install(tiny_model_dir, data, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs Optuna: pip install 'heldout\[search\]'"):
        refuse_absent("tpe")


def test_dry_run_tells_what_the_search_costs(tiny_model_dir, data, tmp_path):
    plan = dry_run(
        str(tiny_model_dir),
        data,
        recipe="full",
        settings=[*SETTINGS, *GRIDS],
        out=tmp_path / "run",
    )
    (search,) = [check.message for check in plan.checks if check.name == "search"]
    assert search.startswith("up to 9 trainings of up to 3 epochs before the run")


@pytest.mark.slow
def test_the_rate_is_searched_first_where_no_grid_has_it(tiny_model_dir, data, tmp_path):
    progress = _StopsAfter("training", 1)
    with pytest.raises(Interrupted):
        fit(
            str(tiny_model_dir),
            data,
            out=tmp_path / "run",
            recipe="full",
            settings=[
                *SETTINGS[1:],
                "search.learning_rates=[1e-3]",
                "search.ranges.train.max_epochs=[1, 2]",
            ],
            progress=progress,
        )
    run = Run.open(tmp_path / "run")
    assert run.read_json("search.json")["chosen"] == 1e-3
    assert run.recipe.train.learning_rate == 1e-3
    assert run.read_json("tuning.json")["chosen"].keys() == {"train.max_epochs"}
    assert any(note.startswith(("Certified", "No certificate")) for note in progress.notes)


@pytest.mark.slow
def test_a_large_model_from_scratch_starts_at_a_rate_of_pretraining(tiny_model_dir, tmp_path):
    config = json.loads((tiny_model_dir / "config.json").read_text())
    config |= {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 128}
    (tmp_path / "config.json").write_text(json.dumps(config))
    recipe = load_recipe("full")
    target = Target.of(str(tiny_model_dir), str(tmp_path / "config.json"))
    loaded = target.load(recipe)
    assert loaded.parameters > 20_000_000
    assert usual_rate(target, recipe) == 1e-3
    loaded.model.save_pretrained(tmp_path / "saved")
    loaded.tokenizer.save_pretrained(tmp_path / "saved")
    assert usual_rate(Target.of(str(tmp_path / "saved"), ""), recipe) == 3e-5


@pytest.mark.slow
def test_what_augmentation_changes_is_measured_at_the_chosen_settings(
    tiny_model_dir, data, tmp_path
):
    result = fit(
        str(tiny_model_dir),
        data,
        out=tmp_path / "run",
        recipe="full",
        settings=[
            *SETTINGS,
            "train.learning_rate=3e-3",
            "augment.word_dropout.rate=0.9",
            "search.ranges.augment.word_dropout.rate=[0.001, 0.9]",
        ],
    )
    assert result.run.recipe.augment["word_dropout"]["rate"] == 0.001
    (entry,) = result.run.read_json("augmentation.json")["augmentations"]
    measured = {one["name"]: one for one in entry["measurements"]}
    assert measured["unchanged_rows"]["value"] > 0.5, (
        "at the start of the search hardly any row stays as it is"
    )


def test_the_shipped_recipe_searches_around_its_own_values():
    recipe = load_recipe("pretrain_little_data")
    assert set(recipe.search.ranges) == {
        "train.max_epochs",
        "train.learning_rate",
        "regularizers.weight_decay.rate",
        "regularizers.dropout.hidden",
    }
    for key, values in recipe.search.ranges.items():
        ratios = {round(high / low, 6) for low, high in itertools.pairwise(values)}
        assert ratios == {2.0}, key
