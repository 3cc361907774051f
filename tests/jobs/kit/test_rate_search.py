"""The search for a learning rate hands its winner on, bit for bit, and stops what has lost."""

import json
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from heldout.core.interrupt import stop_on_interrupt
from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress
from heldout.core.recipe import load_recipe
from heldout.core.regularizer import Evaluation
from heldout.core.run import Run
from heldout.jobs.fitting.cross_validate import train_by_folds
from heldout.jobs.fitting.main_training import train_main
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.find_rate import find_learning_rate
from heldout.jobs.kit.learning_curve import learning_curve
from heldout.jobs.kit.parts import load_parts, read_parts
from heldout.jobs.kit.places import Places
from heldout.jobs.kit.run_folder import start_run
from heldout.jobs.kit.target import Target
from heldout.jobs.kit.trial_watch import TrialWatch
from heldout.lm.load import load_model
from heldout.lm.nll import document_losses
from heldout.lm.quiet import quiet_libraries
from heldout.training.loop import Schedule

SETTINGS = (
    "train.max_epochs=2",
    "train.warmup_steps=2",
    "train.checkpoint_minutes=0",
    "eval.per_epoch=2",
    "eval.max_train_rows=10",
    "data.max_length=48",
    "data.test_share=0",
    "search.learning_rates=[3e-4, 3e-2, 1e-2]",
    "search.epochs=1",
)
GIVEN = "train.learning_rate=3e-2"  # the best of these, as the tests see


@pytest.fixture(scope="module")
def data(english_text, tmp_path_factory):
    found = [" ".join(p.split())[:90] for p in english_text.split("\n\n") if len(p) > 100]
    path = tmp_path_factory.mktemp("data") / "prose.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in found[:76]))
    return str(path)


class Killed(BaseException):
    """As if the process had died here."""


class KilledAt(Progress):
    """Dies at a sign of life number so many within a stage of this name; 0: as it begins."""

    def __init__(self, words, steps):
        self.words, self.steps, self.name = words, steps, ""

    @contextmanager
    def stage(self, name, total=None):
        self.name = name
        if self.words in name and not self.steps:
            raise Killed
        yield

    def advance(self, num=1, text=""):
        if self.words in self.name:
            self.steps -= 1
            if self.steps == 0:
                raise Killed


def trained(model, data, folder, settings, recipe="full", progress=None, most=1):
    """Search and main training of a run, new or gone on with; ``most`` trainings at once."""
    with quiet_libraries(), stop_on_interrupt() as request:
        if (folder / "status.json").exists():
            run = Run.open(folder)
        else:
            chosen = load_recipe(recipe, [*SETTINGS, *settings])
            parts = read_parts(data, chosen)
            run = start_run(folder, chosen, parts, [], model=str(model), from_scratch="")
        target, parts = Target.of(str(model), ""), load_parts(run)
        progress = progress or Progress()
        context = RunContext(
            run, target, run.recipe, parts.texts, progress, request, Places(most, 1)
        )
        train_main(context, find_learning_rate(context))
    return run


def assert_same_training(run, other):
    assert run.history() == other.history()
    for entry in run.history():
        name = f"step-{entry['step']:06d}"
        losses = [each.losses(name, "validation").nll_nats_D for each in (run, other)]
        assert np.array_equal(*losses)
    for name in ("best", "last"):
        assert_same_weights(run.path(name), other.path(name))
    ends = [each.read_json("result.json") for each in (run, other)]
    for key in ("last_step", "last_epoch", "best_step", "stop_reason", "learning_rate"):
        assert ends[0][key] == ends[1][key], key


def loss_of_saved(run, folder):
    loaded = load_model(str(folder), device="cpu")
    rows = list(run.read_rows("validation"))
    found = document_losses(loaded.model, rows, loaded.tokenizer, max_length=48, batch_size=16)
    return found.nats_per_token


def assert_same_weights(folder, other):
    (path,), (second,) = folder.glob("*.safetensors"), other.glob("*.safetensors")
    weights, expected = load_file(path), load_file(second)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


CASES = {
    "averages and noise": (
        "full",
        (
            "regularizers.weight_decay.rate=1",
            "regularizers.ema.decay=0.9",
            "regularizers.dropout.hidden=0.1",
            "regularizers.mixout=true",
        ),
    ),
    "adapters": ("lora", ("train.batch_size=16", "train.micro_batch_size=8")),
    "between two evaluations": ("full", ("search.max_steps=6", "regularizers.dropout.hidden=0.1")),
    "before the first evaluation": ("full", ("search.max_steps=3", "train.warmup_steps=1")),
    "decay as a shrink": ("full", ("regularizers.weight_decay={shrink_per_epoch=0.2}",)),
    "schedule-free": ("full", ("train.optimizer=schedule_free", "regularizers.ema=false")),
    "all of the training": ("full", ("train.max_epochs=1",)),
    "rolled back": (
        "full",
        ("regularizers.early_stopping=false", "regularizers.ema=false",
         "regularizers.rollback.patience=1",
         "regularizers.rollback.min_delta=9", "eval.per_epoch=4"),
    ),
}  # fmt: skip


QUICK = ("averages and noise",)


@pytest.mark.parametrize(
    "case",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_the_training_goes_on_from_the_winning_trial(case, tiny_model_dir, data, tmp_path):
    recipe, settings = CASES[case]
    run = trained(tiny_model_dir, data, tmp_path / "searched", settings, recipe)
    search = run.read_json("search.json")
    chosen = next(each for each in search["trials"] if each["learning_rate"] == search["chosen"])
    assert search["handed_on"] == chosen["steps"] > 0
    if case == "rolled back":
        assert any(each["rolled_back"] and each["step"] < chosen["steps"] for each in run.history())
    given = (*settings, f"train.learning_rate={search['chosen']}")
    assert_same_training(run, trained(tiny_model_dir, data, tmp_path / "given", given, recipe))
    if case == "decay as a shrink":
        found = run.read_json("result.json")
        assert found["weight_decay_shrink"] == pytest.approx(0.4)
        rate, share = found["learning_rate"], found["best_step"] / found["last_step"]
        assert found["weight_decay"] == pytest.approx(0.4 / rate / (found["last_step"] - 1.5))
        assert found["best_weight_decay_shrink"] == pytest.approx(0.4 * share, rel=0.2)
    if case == "averages and noise":
        handed_on = [each for each in run.history() if 0 < each["step"] <= chosen["steps"]]
        assert {each["weights"] for each in handed_on} == {"raw", "average"}
        assert chosen["validation_nll"] == handed_on[-1]["validation_nll"]
        losses = run.losses("last", "validation").nats_per_token
        assert loss_of_saved(run, run.last) == pytest.approx(losses, abs=1e-6)


@pytest.fixture(scope="module")
def given(tiny_model_dir, data, tmp_path_factory):
    """The training at the rate that the searches of ``SETTINGS`` choose."""
    return trained(tiny_model_dir, data, tmp_path_factory.mktemp("runs") / "given", (GIVEN,))


KILLED_AT = {
    "in a trial": ("learning rate 0.03", 3),
    "between search and training": ("going on", 0),
    "while it is handed on": ("going on", 2),
    "before the next step": ("training", 0),
    "in the training": ("training", 9),
}


@pytest.mark.parametrize(
    "place",
    [
        name if name == "while it is handed on" else pytest.param(name, marks=pytest.mark.slow)
        for name in KILLED_AT
    ],
)
def test_a_kill_changes_nothing(place, given, tiny_model_dir, data, tmp_path):
    progress = KilledAt(*KILLED_AT[place])
    with pytest.raises(Killed):
        trained(tiny_model_dir, data, tmp_path / "run", (), progress=progress)
    run = trained(tiny_model_dir, data, tmp_path / "run", ())
    assert run.read_json("search.json")["handed_on"] > 0
    assert_same_training(run, given)


class Folders(Progress):
    """Which trials have a folder whenever a trial begins."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    @contextmanager
    def stage(self, name, total=None):
        if name.startswith("learning rate"):
            found = (path.name for path in self.folder.glob("*") if path.is_dir())
            self.seen.append(sorted(found))
        yield


@pytest.mark.slow
def test_after_a_round_the_best_trial_alone_keeps_its_folder(tiny_model_dir, data, tmp_path):
    progress = Folders(tmp_path / "run" / "checkpoints" / "search")
    trained(tiny_model_dir, data, tmp_path / "run", (), progress=progress)
    assert progress.seen == [["0.0003"], ["0.0003", "0.03"], ["0.01", "0.03"]]


class Beside(Folders):
    """What begins in another process."""

    def beside(self, name):
        self.others = [*getattr(self, "others", ()), name]
        return Progress()


@pytest.mark.slow
def test_trials_side_by_side_find_the_same(given, tiny_model_dir, data, tmp_path):
    progress = Beside(tmp_path / "run" / "checkpoints" / "search")
    run = trained(tiny_model_dir, data, tmp_path / "run", (), progress=progress, most=2)
    assert progress.others == ["learning rate 0.03"]
    one_by_one = trained(tiny_model_dir, data, tmp_path / "one", ())
    assert trials_of(run) == trials_of(one_by_one)
    assert run.read_json("search.json")["handed_on"] > 0
    assert_same_training(run, given)


def trials_of(run):
    keys = ("learning_rate", "validation_nll", "steps", "stopped_early", "diverged")
    return [[each[key] for key in keys] for each in run.read_json("search.json")["trials"]]


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 2])
def test_a_kill_in_the_middle_of_a_round_changes_nothing(
    most, given, tiny_model_dir, data, tmp_path
):
    """Once its second trial has ended and its first has not, or the other way round."""
    folder = tmp_path / "run"
    killed = KilledAt("learning rate 0.03", 3) if most == 1 else DiesOnceThere(folder)
    with pytest.raises(Killed):
        trained(tiny_model_dir, data, folder, (), progress=killed, most=most)
    done, other = ("0.0003", "0.03") if most == 1 else ("0.03", "0.0003")
    ended = folder / "checkpoints" / "search" / done / "trial.json"
    assert ended.exists()
    assert not (folder / "checkpoints" / "search" / other / "trial.json").exists()
    before = ended.stat().st_mtime_ns
    progress = EndedOnce(ended)
    run = trained(tiny_model_dir, data, folder, (), progress=progress)
    assert progress.seen == before, "what had ended was not done again"
    assert [each[0] for each in trials_of(run)] == [3e-4, 3e-2, 1e-2]
    assert_same_training(run, given)


class DiesOnceThere(Progress):
    """Its own trial of the first round dies once the other one has ended."""

    def __init__(self, folder):
        self.other = folder / "checkpoints" / "search" / "0.03" / "trial.json"
        self.name = ""

    @contextmanager
    def stage(self, name, total=None):
        self.name = name
        yield

    def advance(self, num=1, text=""):
        if self.name == "learning rate 0.0003":
            end = time.monotonic() + 120
            while not self.other.exists():
                assert time.monotonic() < end, "the other trial did not end"
                time.sleep(0.05)
            raise Killed

    def beside(self, name):
        return Progress()


class EndedOnce(Progress):
    """When a file was written, as the last trial begins."""

    def __init__(self, path):
        self.path, self.seen = path, None

    @contextmanager
    def stage(self, name, total=None):
        if name.startswith("learning rate") and self.path.exists():
            self.seen = self.path.stat().st_mtime_ns
        yield


class StepsOf(Progress):
    """The step at which each figure was told within a stage of this name."""

    def __init__(self, words):
        self.words, self.name, self.step, self.told = words, "", 0, []

    @contextmanager
    def stage(self, name, total=None):
        self.name, self.total = name, total
        yield

    def advance(self, num=1, text=""):
        if self.words in self.name:
            self.step += num
            self.told += [(self.step, self.total)] if text else []


def test_a_trial_that_has_lost_is_stopped(tiny_model_dir, data, tmp_path):
    rates, progress = "search.learning_rates=[1e-2, 1e-4, 1e-5]", StepsOf("going on")
    run = trained(tiny_model_dir, data, tmp_path / "run", (rates,), progress=progress)
    total = progress.told[0][1]
    assert progress.told == [(0, total), (total // 2, total), (total, total)]
    best, beside, lost = run.read_json("search.json")["trials"]
    assert [each["stopped_early"] for each in (best, beside, lost)] == [False, False, True]
    assert beside["steps"] == best["steps"], "of the same round as the best"
    assert lost["steps"] == best["steps"] // 2
    assert run.read_json("search.json")["chosen"] == 1e-2


def test_a_trial_that_was_better_before_its_loss_rose_has_not_lost():
    """It counts by its lowest loss, as does the best one that it is compared with."""

    def of(nats):
        return DocumentLosses(
            10.0 * nats + np.linspace(-0.5, 0.5, 40),
            np.full(40, 10),
            np.full(40, 30),
            np.array([f"g{n}" for n in range(40)]),
        )

    recipe = load_recipe("full", ["train.warmup_steps=2"])

    def lost(*nats, grace=0):
        watch = TrialWatch(
            SimpleNamespace(recipe=recipe), None, Schedule(200, 20, 10), 100, of(3.9), grace
        )
        for number, level in enumerate(nats):
            watch._add(Evaluation(number * 30, number * 3.0, of(level)), None, 3e-3)
        return watch.has_lost

    assert not lost(5.0, 3.8, 4.2, 4.6), "3.8 is lower than all of the best trial's"
    assert lost(5.0, 4.4, 4.4, 4.6)
    assert lost(5.0, 4.2, 4.2, 4.2), "worse than the other's lowest loss, if not than its last"
    assert not lost(5.0, 4.4, 4.4, 4.6, grace=91)


@pytest.mark.slow
def test_what_is_no_beginning_is_not_gone_on_from(tiny_model_dir, data, tmp_path):
    """A falling rate falls in a trial, too; a short trial is not spent on the warm-up."""
    for place, setting in enumerate(("train.schedule=cosine", "train.warmup_steps=8")):
        settings = ("train.max_epochs=3", "search.learning_rates=[1e-2]", setting)
        run = trained(tiny_model_dir, data, tmp_path / str(place), settings)
        search = run.read_json("search.json")
        assert (search["handed_on"], search["chosen"]) == (0, 1e-2)
        assert [each["step"] for each in run.history()][:2] == [0, 5]


@pytest.mark.slow
def test_the_first_fold_goes_on_from_the_trial(tiny_model_dir, data, tmp_path):
    histories = []
    for settings in ((), ("train.learning_rate=1e-2",)):
        folder = tmp_path / str(len(settings))
        with quiet_libraries(), stop_on_interrupt() as request:
            recipe = load_recipe(
                "full",
                [
                    *SETTINGS,
                    "search.learning_rates=[1e-2]",
                    "eval.folds=2",
                    "train.batch_size=2",
                    "train.micro_batch_size=2",
                    *settings,
                ],
            )
            few = tmp_path / "few.jsonl"
            few.write_text("\n".join(Path(data).read_text().splitlines()[:24]))
            parts = read_parts(str(few), recipe)
            run = start_run(folder, recipe, parts, [], model=str(tiny_model_dir), from_scratch="")
            parts = load_parts(run)
            assert parts.mode == "cross_validation"
            target = Target.of(str(tiny_model_dir), "")
            context = RunContext(run, target, recipe, parts.texts, Progress(), request)
            train_by_folds(context, parts)
        histories.append([run.history(f"fold_{fold}_history.jsonl") for fold in range(2)])
    assert Run.open(tmp_path / "0").read_json("search.json")["handed_on"] > 0
    assert histories[0] == histories[1]


@pytest.mark.slow
def test_the_curve_of_all_rows_goes_on_from_the_trial(tiny_model_dir, data, tmp_path):
    found = []
    for settings in ((), ("train.learning_rate=1e-2",)):
        recipe = load_recipe(
            "full",
            [*SETTINGS, "search.learning_rates=[1e-2]", "train.batch_size=4",
             "train.micro_batch_size=4", *settings],
        )  # fmt: skip
        parts = read_parts(data, recipe)
        folder = tmp_path / str(len(settings))
        found.append(
            learning_curve(
                str(tiny_model_dir), parts, recipe, fractions=(0.25, 0.5, 1), seeds=(0, 1),
                folder=folder,
            )
        )  # fmt: skip
    assert Run.open(tmp_path / "0").read_json("search.json")["handed_on"] > 0
    assert found[0] == found[1]
