"""Loss and metric that disagree, where a lower metric is better."""

import json
import pickle
import zipfile

import pytest
import torch
from transformers import TrainingArguments

from heldout.jobs.diagnosing.diagnose import diagnose
from heldout.jobs.diagnosing.score_directions import score_directions

RISING = (2.4, 2.6, 2.9, 3.38)
FALLING = (0.5, 0.3, 0.2, 0.14)


def log(scores, name, **more):
    """Four epochs of 100 steps whose held-out loss rises from the first on."""
    entries = [{"loss": 3.2 - 0.03 * i, "step": 10 * i, "epoch": i / 10} for i in range(1, 41)]
    for epoch, (loss, score) in enumerate(zip(RISING, scores, strict=True), 1):
        found = {"eval_loss": loss, f"eval_{name}": score, "eval_runtime": 9.0 - epoch}
        entries.append({**found, "step": 100 * epoch, "epoch": float(epoch)})
    return {"global_step": 400, "log_history": entries, **more}


@pytest.fixture
def told(tmp_path):
    def of(log):
        file = tmp_path / "trainer_state.json"
        file.write_text(json.dumps(log), encoding="utf-8")
        result = diagnose(file)
        return result.verdict.verdicts["fit"].color, " ".join(result.warnings), result

    return of


def save_arguments(folder, **arguments):
    chosen = TrainingArguments(output_dir=str(folder), report_to="none", **arguments)
    torch.save(chosen, folder / "training_args.bin")


@pytest.mark.parametrize("metric", ["eval_slips", "slips"])
def test_the_arguments_of_the_training_say_which_way_is_better(told, tmp_path, metric):
    save_arguments(tmp_path, metric_for_best_model=metric, greater_is_better=False)
    color, text, result = told(log(FALLING, "slips"))
    assert color == "yellow"
    assert "Loss and slips disagree: the loss was lowest at step 100, where slips was 0.5" in text
    assert "slips was best at step 400, with 0.14" in text
    assert not result.verdict.causes
    color, text, _ = told(log(FALLING[::-1], "slips"))
    assert color == "red", "more slips: both got worse"
    assert "disagree" not in text


def test_the_arguments_go_before_a_well_known_name(tmp_path):
    save_arguments(tmp_path, metric_for_best_model="accuracy", greater_is_better=False)
    assert score_directions(tmp_path, {}) == {"accuracy": False}
    save_arguments(tmp_path, metric_for_best_model="eval_loss", greater_is_better=False)
    assert score_directions(tmp_path, {}) == {}


def test_what_a_trainer_kept_says_which_way_is_better(told):
    kept = {"best_global_step": 400, "best_metric": 0.14}
    color, text, result = told(log(FALLING, "slips", **kept))
    assert color == "yellow"
    assert "Loss and slips disagree" in text
    assert result.facts.greater_is_better == {"slips": False}
    kept = {"best_global_step": 400, "best_metric": 3.0}
    assert told(log((1.0, 2.0, 2.5, 3.0), "hits", **kept))[0] == "yellow"
    assert told(log(FALLING, "slips"))[0] == "red", "nothing says that slips are a score"


def test_well_known_names_where_nothing_else_tells(told):
    assert told(log(FALLING, "wer"))[0] == "yellow"
    assert told(log(FALLING, "error_rate"))[0] == "yellow"
    assert told(log(FALLING[::-1], "wer"))[0] == "red"
    assert told(log(FALLING, "std_error"))[0] == "red", "no score"
    assert told(log(FALLING, "answers"))[0] == "red", "no wer"


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the arguments were run",))


def test_arguments_are_never_run(tmp_path):
    with zipfile.ZipFile(tmp_path / "training_args.bin", "w") as archive:
        settings = {"metric_for_best_model": "slips", "greater_is_better": False}
        archive.writestr("arguments/data.pkl", pickle.dumps([Trap(), settings, settings]))
    assert score_directions(tmp_path, {}) == {"slips": False}
    for damaged in (b"", b"PK\x03\x04", pickle.dumps(settings)):
        (tmp_path / "training_args.bin").write_bytes(damaged)
        assert score_directions(tmp_path, {}) == {}
