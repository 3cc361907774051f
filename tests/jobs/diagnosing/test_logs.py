"""Logs as trainers really write them, read off the log alone."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from heldout.core.errors import UserError
from heldout.jobs.diagnosing.diagnose import diagnose
from heldout.jobs.diagnosing.find_target import saved_step
from heldout.jobs.diagnosing.trainer_logs import read_logs

FALLING = [3.0, 2.6, 2.4, 2.3, 2.25]
NAN = float("nan")


def state(losses, *, every=100, name="", training=None, **more):
    """A log with an evaluation each epoch of ``every`` steps, and ten training losses an epoch."""
    entries = []
    for index in range(10 * len(losses)):
        step = (index + 1) * every // 10
        loss = 3.2 - 0.03 * index if training is None else training[index]
        entries.append({"loss": loss, "grad_norm": 1.0, "step": step, "epoch": step / every})
    key = f"eval_{name}_loss" if name else "eval_loss"
    for index, loss in enumerate(losses):
        step = (index + 1) * every
        entries.append({key: loss, "step": step, "epoch": step / every})
    return {"global_step": every * len(losses), "log_history": entries, **more}


@pytest.fixture
def told(tmp_path):
    """The diagnosis of a log that is given as a dictionary."""

    def of(log, **options):
        file = tmp_path / "trainer_state.json"
        file.write_text(json.dumps(log), encoding="utf-8")
        return diagnose(file, **options)

    return of


def color(result):
    return result.verdict.verdicts["fit"].color


def test_a_rise_is_red_with_the_step_to_keep(told, tmp_path):
    (tmp_path / "checkpoint-300").mkdir()
    result = told(state([*FALLING[:3], 2.6, 2.8, 3.0, 3.2, 3.4]))
    assert color(result) == "red"
    assert "risen by 1.000 since step 300" in result.verdict.headline
    assert any(str(tmp_path / "checkpoint-300") in text for text in result.warnings)
    assert result.verdict.causes[0].name == "too_many_epochs"


def test_a_loss_that_only_falls_is_yellow_and_passes_a_gate(told):
    result = told(state(FALLING))
    assert color(result) == "yellow"
    assert not result.verdict.causes or result.verdict.causes[0].name == "underfitting"
    assert "lowest at its last evaluation" in result.warnings[0]


def test_three_evaluations_tell_of_a_large_rise_only(told):
    assert color(told(state([2.4, 2.7, 2.9]))) == "red"
    small = told(state([2.4, 2.42, 2.45]))
    assert color(small) == "unknown"
    assert "The log cannot tell" in small.verdict.headline
    assert not small.verdict.causes


def test_the_best_evaluation_may_be_the_first(told):
    result = told(state([2.4, 3.1, 4.4]))
    assert [cause.name for cause in result.verdict.causes][:1] == ["too_many_epochs"]


def test_the_size_of_the_rise_moves_the_confidence(told):
    causes = [told(state([2.4, 2.4 + rise / 2, 2.4 + rise])).verdict.causes for rise in (0.3, 2.0)]
    assert causes[1][0].confidence > causes[0][0].confidence


def test_training_that_diverged_is_a_rate_too_high(told):
    training = [3.0 - 0.05 * i for i in range(10)] + [2.6 + 0.5 * i for i in range(10)]
    result = told(state([2.6, 7.0], training=training))
    assert result.verdict.causes[0].name == "learning_rate_too_high"
    assert "training loss rose" in " ".join(result.verdict.causes[0].evidence_for)


def test_evaluations_that_are_nan_at_the_end_are_told_first(told):
    result = told(state([3.0, 2.5, NAN, NAN]))
    assert result.verdict.headline.startswith("From step 300")
    assert [point.step for point in result.facts.history] == [100, 200]
    assert color(result) != "green"


def test_evaluations_that_are_all_nan_do_not_mean_that_training_died(told):
    result = told(state([NAN, NAN, NAN]))
    assert result.verdict.headline.startswith("Every evaluation is NaN, from step 100")
    assert "did not die" in result.verdict.headline
    assert color(result) == "unknown"


def test_a_single_nan_is_left_out(told):
    result = told(state([3.0, NAN, 2.4, 2.3]))
    assert "The evaluation at step 200 is NaN and is left out." in result.warnings
    assert [point.step for point in result.facts.history] == [100, 300, 400]


def test_a_zero_loss_beside_a_gradient_that_is_no_number_is_death(told):
    log = state([3.0, 2.5, NAN, NAN])
    for entry in log["log_history"]:
        if "loss" in entry and entry["step"] >= 230:
            entry.update(loss=0.0, grad_norm=NAN)
    result = told(log)
    assert result.verdict.headline.startswith("Training died at step 230")
    assert color(result) == "red"
    assert result.facts.history[-1].train_nll > 2


def test_a_zero_loss_alone_is_no_death(told):
    log = state(FALLING)
    log["log_history"][40]["loss"] = 0.0
    assert "died" not in told(log).verdict.headline


def test_one_named_evaluation_is_used(told):
    result = told(state(FALLING, name="my_set"))
    assert [point.validation_nll for point in result.facts.history] == FALLING
    assert result.warnings[0].startswith("By eval_my_set_loss")


def test_of_several_evaluations_one_is_named(told):
    log = state(FALLING, name="inside")
    log["log_history"] += [
        {**entry, "eval_outside_loss": 2.0 + 0.3 * i}
        for i, entry in enumerate(e for e in state(FALLING)["log_history"] if "eval_loss" in e)
        if entry.pop("eval_loss")
    ]
    both = told(log)
    assert color(both) == "unknown"
    assert both.verdict.headline == (
        "Not measured: the log holds several evaluations, and none was named to judge by."
    )
    assert {text.split(",")[0] for text in both.warnings[:2]} == {
        "By eval_inside_loss",
        "By eval_outside_loss",
    }
    assert color(told(log, evaluation="outside")) == "red"
    assert color(told(log, evaluation="inside")) == "yellow"
    with pytest.raises(UserError, match=r"--evaluation nope: .* there are inside, outside"):
        told(log, evaluation="nope")


def test_the_plain_evaluation_is_the_one_to_judge_by_beside_named_ones(told):
    log = state([*FALLING[:3], 2.6, 2.8, 3.0, 3.2, 3.4])
    log["log_history"] += [
        {**entry, "eval_other_loss": entry["eval_loss"] + 1}
        for entry in log["log_history"]
        if "eval_loss" in entry
    ]
    for entry in log["log_history"]:
        if "eval_other_loss" in entry:
            del entry["eval_loss"]
    assert color(told(log)) == "red"
    assert color(told(log, evaluation="other")) == "red"


def test_an_evaluation_written_twice_counts_once(told):
    log = state(FALLING)
    log["log_history"].append(dict(log["log_history"][-1]))
    assert [point.validation_nll for point in told(log).facts.history] == FALLING


def test_the_best_checkpoint_evaluated_again_is_no_point_of_the_curve(told):
    log = state([2.9, 2.3, 2.6, 2.9])
    log["log_history"].append({"eval_loss": 2.3 + 1e-9, "step": 400, "epoch": 4.0})
    result = told(log)
    assert [point.validation_nll for point in result.facts.history] == [2.9, 2.3, 2.6, 2.9]
    assert any("of the best checkpoint, loaded again" in text for text in result.warnings)


def test_two_evaluations_that_differ_at_one_step_are_told(told):
    log = state(FALLING)
    log["log_history"].append({"eval_loss": 2.5, "step": 200, "epoch": 2.0})
    result = told(log)
    assert result.facts.history[1].validation_nll == 2.5
    assert any("Step 200 was evaluated more than once" in text for text in result.warnings)


@pytest.mark.parametrize("known", [{"epoch": 5.0}, {"num_train_epochs": 5}])
def test_epochs_that_are_null_are_read_off_the_steps(told, known):
    log = state(FALLING, **known)
    for entry in log["log_history"]:
        entry["epoch"] = None
    assert [point.epoch for point in told(log).facts.history] == pytest.approx([1, 2, 3, 4, 5])


def test_a_training_loss_that_is_a_sum_is_not_used(told):
    result = told(state(FALLING, training=[16 * (3.1 - 0.02 * i) for i in range(50)]))
    assert all(point.train_nll is None for point in result.facts.history)
    assert any("sum over accumulation steps" in text for text in result.warnings)


def test_loss_and_score_that_disagree_are_both_told(told, tmp_path):
    for step in (100, 400):
        (tmp_path / f"checkpoint-{step}").mkdir()
    log = state([2.4, 2.6, 2.9, 3.38], best_global_step=400, best_metric=0.86)
    scores = iter([0.5, 0.7, 0.8, 0.86])
    for entry in log["log_history"]:
        if "eval_loss" in entry:
            entry["eval_accuracy"] = next(scores)
    result = told(log)
    text = " ".join(result.warnings)
    assert "Loss and accuracy disagree" in text
    assert "lowest at step 100, where accuracy was 0.5" in text
    assert "best at step 400, with 0.86" in text
    for name, step in (("loss", 100), ("accuracy", 400)):
        place = tmp_path / f"checkpoint-{step}"
        assert f"By {name} the checkpoint to keep is that of step {step}: {place}." in text
    assert "By a metric of its own, 0.86, the Trainer chose step 400" in text
    assert color(result) == "yellow"
    assert not result.verdict.causes
    assert not result.remedies


def test_a_score_that_hardly_moves_does_not_excuse_a_rise(told):
    log = state([2.4, 2.6, 2.9, 3.38])
    scores = iter([0.5, 0.51, 0.52, 0.52])
    for entry in log["log_history"]:
        if "eval_loss" in entry:
            entry["eval_accuracy"] = next(scores)
    result = told(log)
    assert color(result) == "red"
    assert result.verdict.causes[0].name == "too_many_epochs"


@pytest.mark.parametrize("broken", ['{"log_history": 3}', "[1]", "{", '{"log_history": []}'])
def test_what_is_no_log_is_one_clear_line(tmp_path, broken):
    file = tmp_path / "trainer_state.json"
    file.write_text(broken, encoding="utf-8")
    with pytest.raises(UserError, match=r"trainer_state\.json"):
        read_logs(file)


def test_the_step_of_saved_weights_is_found_by_the_files(tmp_path):
    for step in (10, 20, 30):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"w": np.full(1000, step, np.float32)}, folder / "model.safetensors")
    save_file({"w": np.full(1000, 20, np.float32)}, tmp_path / "model.safetensors")
    checkpoints = sorted(tmp_path.glob("checkpoint-*"))
    assert saved_step(tmp_path, checkpoints) == 20
    save_file({"w": np.full(1000, 99, np.float32)}, tmp_path / "model.safetensors")
    assert saved_step(tmp_path, checkpoints) is None


def test_the_command_judges_a_log_without_importing_what_only_others_need(tmp_path):
    file = tmp_path / "trainer_state.json"
    file.write_text(json.dumps(state(FALLING)), encoding="utf-8")
    code = (
        "import sys; from heldout.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as ended: assert ended.code == 0, ended\n"
        "from heldout.core.discovery import entries_of\n"
        "others = [f'heldout.core.results.{name}' for name in ('advice', 'check', 'ensemble')]\n"
        "others += [f'heldout.cli.{name}' for name in ('advise', 'check', 'fit', 'list')]\n"
        "others += ['heldout.jobs.diagnosing.log_formats.console']\n"
        "bad = {'torch', 'transformers', 'datasets', 'contourpy', 'regex', *others}\n"
        "assert not bad & set(sys.modules), bad & set(sys.modules)\n"
        "assert not entries_of.cache_info().misses, 'all probes are read'\n"
    )
    command = [sys.executable, "-c", code, "diagnose", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
