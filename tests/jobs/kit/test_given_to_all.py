"""Objects for the jobs that compare, compress, average and retrain: what is found is the same."""

import json
from pathlib import Path

import datasets
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import heldout
from heldout.core.files import LOCK

SHORT = (
    "data.max_length=48",
    "train.learning_rate=1e-3",
    "train.max_epochs=1",
    "train.warmup_steps=2",
    "eval.per_epoch=1",
    "eval.max_train_rows=4",
    "eval.max_recital_rows=4",
    "eval.num_samples=0",
    "eval.max_new_tokens=2",
)


@pytest.fixture(scope="module")
def rows(english_text):
    texts = [" ".join(part.split())[:100] for part in english_text.split("\n\n") if len(part) > 90]
    return [{"text": text} for text in texts[:120]]


@pytest.fixture(scope="module")
def file(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tiny(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


# check


@pytest.mark.parametrize(
    ("heldout_rows", "against"),
    [
        (lambda rows: rows[:7], lambda rows: rows[:5]),
        (lambda rows: pd.DataFrame(rows[:7]), lambda rows: datasets.Dataset.from_list(rows[:5])),
        (
            lambda rows: [pd.DataFrame(rows[:3]), rows[3:7]],
            lambda rows: [datasets.Dataset.from_list(rows[:5])],
        ),
        (lambda rows: {"a": rows[:3], "b": pd.DataFrame(rows[3:7])}, lambda rows: {"x": rows[:5]}),
    ],
    ids=["dicts", "tables", "lists", "by name"],
)
def test_check_compares_with_objects_as_with_files(rows, heldout_rows, against):
    found = heldout.check(rows[:40], heldout=heldout_rows(rows), against=against(rows))
    assert found.counts["leaks_exact"] == 7
    assert found.counts["contaminated_rows"] == 5
    told = json.dumps(found.to_json())
    assert "heldout-data-" not in told
    assert "against" in told


def test_one_path_is_one_source(rows, file):
    found = heldout.check(rows, heldout=str(file), against=file)
    assert found.counts["leaks_exact"] == found.counts["contaminated_rows"] == len(rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"heldout": 3}, "heldout must be a path, a list of dicts"),
        ({"heldout": [3]}, r"heldout\[0\] must be a path, a list of dicts"),
        ({"against": {"exam": [1]}}, r"against\['exam'\] row 1 must be a dict"),
        ({"reference": [1]}, "reference row 1 must be a dict"),
    ],
)
def test_what_is_no_rows_is_refused_by_its_argument(rows, arguments, words):
    with pytest.raises(heldout.UserError, match=words):
        heldout.check(rows[:9], **arguments)


def test_a_fault_of_a_row_names_the_argument(rows):
    found = heldout.check(rows[:9], heldout=[{"text": ""}])
    assert [problem.where for problem in found.problems] == ["heldout row 1"]


# compress


@pytest.mark.slow
def test_compress_takes_objects_and_knows_them_again(
    rows, file, tiny_model_dir, tiny_tokenizer, tmp_path
):
    settings = {"recipe": "full", "settings": SHORT[:4], "blocks": 2}
    named = heldout.compress(str(file), model=str(tiny_model_dir), **settings).to_json()
    model, out = tiny(tiny_model_dir), tmp_path / "out"

    def compressed():
        return heldout.compress(rows, model=model, tokenizer=tiny_tokenizer, out=out, **settings)

    given = compressed().to_json()
    assert given["measurements"] == named["measurements"]
    assert (given["data"], given["model"]) == ("data", "LlamaForCausalLM")
    assert "heldout-given" not in json.dumps(given)
    assert compressed().to_json() == given
    with torch.no_grad():
        model.lm_head.weight.mul_(1.01)
    with pytest.raises(heldout.UserError, match="of other data or settings"):
        compressed()


# ensemble


@pytest.mark.slow
def test_an_ensemble_keeps_what_it_was_given(rows, tiny_model_dir, tiny_tokenizer, tmp_path):
    adapted = get_peft_model(tiny(tiny_model_dir), LoraConfig(r=2, target_modules=["q_proj"]))
    out = tmp_path / "ensemble"
    how = {"tokenizer": tiny_tokenizer, "recipe": "lora", "settings": SHORT}
    assert heldout.dry_run_ensemble(adapted, rows, members=2, **how).rows["test"]
    found = heldout.ensemble(adapted, pd.DataFrame(rows), members=2, out=out, **how)
    assert found.model == str(out.resolve() / "given" / "model")
    assert not (out / "given" / "model" / LOCK).exists()
    config = json.loads((out / "member-1" / "best" / "adapter_config.json").read_text())
    assert Path(config["base_model_name_or_path"]).is_dir()
    again = heldout.ensemble(adapted, pd.DataFrame(rows), members=2, out=out, **how)
    assert again.to_json() == found.to_json()
    for model, data in ((adapted, rows[1:]), (tiny(tiny_model_dir), rows)):
        with pytest.raises(heldout.UserError, match="of another model, data or recipe"):
            heldout.ensemble(model, data, members=2, out=out, **how)
    assert heldout.distill(out).run


# counterfactual


def test_a_model_is_no_run(tiny_model_dir):
    with pytest.raises(heldout.UserError, match=r"target must be the folder of a run .* got Llama"):
        heldout.counterfactual(tiny(tiny_model_dir), num_models=8)


@pytest.mark.slow
def test_a_run_of_an_object_is_retrained_from_it(rows, tiny_model_dir, tiny_tokenizer, tmp_path):
    model = tiny(tiny_model_dir)
    run = heldout.fit(
        model,
        rows[:60],
        tokenizer=tiny_tokenizer,
        out=tmp_path / "run",
        recipe="full",
        settings=[*SHORT, "control.fixed_epochs=0"],
    ).run
    with pytest.raises(heldout.UserError, match=r"given as an object .* heldout.counterfactual\("):
        heldout.counterfactual(run.folder, num_models=8, epochs=1)
    given = {"model": model, "tokenizer": tiny_tokenizer}
    found = heldout.counterfactual(run, num_models=8, epochs=1, **given)
    assert found.target == str(run.folder)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.01)
    with pytest.raises(heldout.UserError, match=r"is not the one that .* was trained from"):
        heldout.counterfactual(run, num_models=8, epochs=1, **given)
