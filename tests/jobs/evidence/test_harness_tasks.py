"""Tasks of the lm-evaluation-harness in a diagnosis: scores by document, and clear refusals."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

from heldout.core.errors import UserError
from heldout.core.harness import HarnessScores
from heldout.core.probe import Evidence
from heldout.jobs.diagnosing.diagnose import diagnose
from heldout.lm.measuring.harness import main_scores
from heldout.probes.harness_tasks import HarnessTasks

installed = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed")
TASK = """task: capitals
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
output_type: multiple_choice
test_split: test
doc_to_text: "The capital of {{{{country}}}} is"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Egypt": "Cairo", "Peru": "Lima"}


def scores(values):
    values = np.asarray(values, float)
    return HarnessScores("acc", values, np.arange(len(values)).astype(str), 0.1)


def measured(best, base):
    evidence = (
        Evidence({}).adding(scores(best), "best", "sums").adding(scores(base), "base", "sums")
    )
    return {each.name: each for each in HarnessTasks().measure(evidence)}


def test_a_task_is_compared_with_the_base_document_by_document():
    base = np.tile([1, 1, 0, 1], 25)
    best = np.where(np.arange(100) % 10 == 0, 1 - base, base)
    found = measured(best, base)["task_sums_best"]
    assert found.value == best.mean()
    contrast = found.contrasts["base"]
    assert contrast.difference == pytest.approx(best.mean() - base.mean())
    # Two samples of 100 would be twice as far apart by chance as these pairs are.
    assert contrast.interval.high - contrast.interval.low < 0.15
    assert "standard error is 0.1" in found.note


def test_equal_answers_are_no_proof_that_nothing_changed():
    contrast = measured(np.ones(20), np.ones(20))["task_sums_best"].contrasts["base"]
    assert contrast.difference == 0
    assert contrast.interval.low < -0.1
    assert contrast.interval.high > 0.1


def test_the_first_number_per_document_counts():
    samples = [
        {"doc_id": doc, "filter": name, "metrics": ["words", "acc"], "words": (1, 2), "acc": acc}
        for name, acc in (("strict", 1.0), ("loose", 0.0))
        for doc in (1, 0)
    ]
    found = main_scores(samples, {"acc_stderr,strict": 0.25})
    assert (found.metric, found.scores_D.tolist()) == ("acc", [1.0, 1.0])
    assert (found.documents_D.tolist(), found.standard_error) == (["0", "1"], 0.25)
    assert main_scores([{**samples[0], "metrics": ["words"]}], {}) is None


@pytest.fixture
def asked(tiny_model_dir, english_text, tmp_path):
    """Arguments of a small diagnosis with one task of the user's own."""
    lines = [json.dumps({"text": english_text[i : i + 90]}) for i in range(0, 1800, 90)]
    for name, part in (("train", lines[::2]), ("heldout", lines[1::2])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(part) + "\n")
    folder = tmp_path / "tasks"
    folder.mkdir()
    documents = [
        {"country": country, "choices": [f" {right}", f" {wrong}"], "answer": 0}
        for country, right in CAPITALS.items()
        for wrong in CAPITALS.values()
        if wrong != right
    ]
    file = folder / "capitals.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in documents))
    (folder / "capitals.yaml").write_text(TASK.format(file=file))
    return {
        "target": str(tiny_model_dir),
        "base": str(tiny_model_dir),
        "train": tmp_path / "train.jsonl",
        "heldout": tmp_path / "heldout.jsonl",
        "probes": ["harness_tasks"],
        "generate": False,
        "include_path": folder,
    }


@installed
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the harness's own
def test_a_task_of_the_users_own_runs_on_both_models(asked):
    result = diagnose(**asked, tasks=["capitals"])
    best, base = (
        next(m for m in result.measurements if m.name == f"task_capitals_{model}")
        for model in ("best", "base")
    )
    assert best.num_units == 20
    assert best.value == base.value  # it is the same model
    assert best.contrasts["base"].difference == 0
    assert best.unit == "acc"
    assert 0 <= best.interval.low <= best.value <= best.interval.high <= 1
    with pytest.raises(UserError, match=r"--tasks nothing_of_the_kind: .* no such task"):
        diagnose(**asked, tasks=["nothing_of_the_kind"])


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_the_harness_the_install_command_is_told(asked):
    with pytest.raises(UserError, match="not installed: run `pip install lm-eval`"):
        diagnose(**asked, tasks=["capitals"])


def test_a_folder_of_tasks_needs_tasks(asked):
    with pytest.raises(UserError, match=r"--include-path .* goes with --tasks"):
        diagnose(**asked)
