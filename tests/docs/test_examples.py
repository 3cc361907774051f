"""The examples of the documentation run."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from heldout.core.augmentation import rows_of_epoch
from heldout.core.row import Row

FOLDER = Path(__file__).parents[2] / "docs" / "docs_src"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_attach(tiny_model_dir, tiny_tokenizer, tmp_path):
    ids = tiny_tokenizer("The with statement wraps the execution of a block.").input_ids
    dataset = [{"input_ids": ids, "labels": ids}] * 8
    trainer = load("attach").train(tiny_model_dir, dataset, tmp_path)
    assert trainer.state.global_step == 4
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_loop(tiny_model_dir, tiny_tokenizer):
    def batch(text):
        ids = tiny_tokenizer(text, return_tensors="pt").input_ids
        return {"input_ids": ids, "labels": ids}

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    window = [batch("The with statement wraps the execution of a block."), batch("Lists.")]
    losses = load("loop").train(model, [window] * 6)
    assert losses[-1] < losses[0]


def test_fit(tiny_model_dir, english_text, tmp_path):
    texts = [p[:60] for p in english_text.split("\n\n") if len(p) > 60][:130]
    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    assert load("fit").fine_tune(str(tiny_model_dir), str(data), tmp_path / "run") > 0


def test_check(english_text, tmp_path):
    texts = [p for p in english_text.split("\n\n") if len(p) > 200][:12]
    for name, rows in (("train", texts[:10]), ("heldout", texts[9:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in rows))
    files = [str(tmp_path / f"{name}.jsonl") for name in ("train", "heldout")]
    assert (9, 0, "exact") in load("check").leaks(*files)


def test_lower_case():
    text = "The United Nations met in Geneva. 你好 NATO."
    rows = [Row(0, ({"role": "text", "content": text},), "row-0")]
    augmentation = load("lower_case").LowerCase(rate=0.5, probability=1.0)
    variants = {
        rows_of_epoch(rows, [augmentation], seed=0, epoch=epoch)[0].messages[0]["content"]
        for epoch in range(8)
    }
    assert len(variants) > 2
    assert {variant.lower() for variant in variants} == {text.lower()}


@pytest.mark.slow
def test_hyperfit(english_text, tmp_path, capsys):
    pieces = [english_text[at : at + 900] for at in range(0, 45_000, 900)]
    for name, part in (
        ("train", slice(20)),
        ("validation", slice(20, 32)),
        ("test", slice(32, 50)),
    ):
        lines = (json.dumps({"text": text}) for text in pieces[part])
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    settings = [f"data.{part}={tmp_path / part}.jsonl" for part in ("validation", "test")]
    settings += ["data.max_length=24", "hyperfit.num_samples=16", "hyperfit.context_tokens=8"]
    settings += ["hyperfit.new_tokens=16", "hyperfit.num_contexts=8", "train.max_epochs=2"]
    settings += ["hyperfit.num_validation_contexts=8", "train.learning_rate=2e-3"]
    result = load("hyperfit").overfit_on_purpose(
        "package:heldout", str(tmp_path / "train.jsonl"), tmp_path / "run", settings
    )
    assert result.outcome in capsys.readouterr().out
    assert (tmp_path / "run" / "best").is_dir()
