"""Merged models are read anew and compared with the adapter on its base; nothing is stubbed."""

import json
import os
import shutil
import warnings
from importlib import resources

import jsonschema
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import load_file
from typer.testing import CliRunner

import heldout
from english import articles
from heldout.cli.main import command_line
from heldout.core.errors import UserError
from heldout.lm.load import load_model

BASE = "package:heldout"
ROWS = "In winter the lake freezes over, and the ferry stays in its harbor until spring. "


@pytest.fixture(scope="module")
def base():
    return load_model(BASE, device="cpu")


def adapter(model, folder, **options):
    """A random LoRA of rank 4 that changes what the model predicts, saved in ``folder``."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*tie_word_embeddings")
        adapted = get_peft_model(
            model, LoraConfig(r=4, **{"target_modules": "all-linear", **options})
        )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    adapted.peft_config["default"].base_model_name_or_path = BASE
    adapted.save_pretrained(folder, save_embedding_layers=False)
    adapted.unload()
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = (json.dumps({"text": f"{ROWS * 3} That was year {1900 + n}."}) for n in range(12))
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    return adapter(base.model, tmp_path_factory.mktemp("adapter") / "lora")


def logits(model, tokenizer):
    with torch.no_grad():
        return model(**tokenizer(ROWS, return_tensors="pt", return_token_type_ids=False)).logits


def test_the_merged_model_predicts_as_the_adapter_does(folder, rows, base, tmp_path):
    found = heldout.merge(folder, out=tmp_path / "merged", heldout=rows, dtype="float32")
    pair = load_model(str(folder), device="cpu", merge_adapter=False)
    merged = load_model(str(tmp_path / "merged"), device="cpu")
    expected = logits(pair.model, pair.tokenizer)
    assert torch.allclose(logits(merged.model, merged.tokenizer), expected, atol=1e-4)
    assert not torch.allclose(logits(base.model, base.tokenizer), expected, atol=0.1)
    assert merged.tokenizer.chat_template == base.tokenizer.chat_template
    assert (tmp_path / "merged" / "generation_config.json").is_file()
    assert found.part == "heldout"
    assert not found.is_worse
    assert found.agreement.largest_difference < 1e-3
    assert found.agreement.same_likeliest == 1
    contrast = found.measurement("merged").contrasts["unmerged"]
    assert abs(contrast.difference) < 1e-4
    schema = json.loads(
        (resources.files("heldout.core") / "schemas" / "merge.json").read_text(encoding="utf-8")
    )
    jsonschema.validate(found.to_json(), schema)
    assert json.loads((tmp_path / "merged" / "merge.json").read_text()) == found.to_json()


def test_types_of_numbers(folder, tmp_path):
    found = heldout.merge(folder, out=tmp_path / "half", dtype="bfloat16")
    weights = load_file(tmp_path / "half" / "model.safetensors")
    assert {each.dtype for each in weights.values()} == {torch.bfloat16}
    assert 0 < found.agreement.mean_kl_nats < 0.01  # rounding is seen, and small
    assert found.part == "texts"
    assert found.measurement("merged").reason
    # A base in bfloat16 is kept so.
    again = heldout.merge(tmp_path / "half", out=tmp_path / "again")
    assert again.dtype == "bfloat16"
    assert again.base == ""
    assert again.agreement.largest_difference == 0


def test_a_head_that_shares_its_weights_is_parted(base, rows, tmp_path):
    place = adapter(base.model, tmp_path / "head", target_modules=["lm_head", "q_proj"])
    found = heldout.merge(place, out=tmp_path / "merged", heldout=rows, dtype="float32")
    assert found.agreement.largest_difference < 1e-3
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False


def test_worse_is_said(folder, rows, tmp_path, monkeypatch):
    # Of a model whose copy lost a layer: the weights are changed between writing and reading.
    from heldout.jobs.merging import merge as job

    whole = job._load

    def damaged(place, source, merge_adapter=True):
        loaded = whole(place, source, merge_adapter)
        if merge_adapter:
            loaded.model.model.layers[2].mlp.down_proj.weight.data.zero_()
        return loaded

    monkeypatch.setattr(job, "_load", damaged)
    found = heldout.merge(folder, out=tmp_path / "merged", heldout=rows, dtype="float32")
    assert found.is_worse
    assert "surely worse" in found.headline
    assert found.agreement.mean_kl_nats > 0.01


def test_refusals(folder, base, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds files: give a new folder. Nothing was written"):
        heldout.merge(folder, out=tmp_path / "full")
    with pytest.raises(UserError, match=r"--dtype must be .* got 'int8'"):
        heldout.merge(folder, out=tmp_path / "new", dtype="int8")
    with pytest.raises(UserError, match="no such run or folder"):
        heldout.merge(tmp_path / "nowhere", out=tmp_path / "new")
    with pytest.raises(UserError, match=r"must end with .gguf"):
        heldout.merge(folder, out=tmp_path / "new", gguf=tmp_path / "model.bin")
    notes = tmp_path / "full" / "notes.txt"
    for places in ({"out": notes / "new"}, {"out": tmp_path / "new", "gguf": notes / "new.gguf"}):
        for job in (heldout.merge, heldout.dry_run_merge):
            with pytest.raises(UserError, match=r"notes.txt, which is a file.* Nothing was wri"):
                job(folder, **places)
    prompts = get_peft_model(
        base.model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=2)
    )
    prompts.peft_config["default"].base_model_name_or_path = BASE
    prompts.save_pretrained(tmp_path / "prompts", save_embedding_layers=False)
    with pytest.raises(UserError, match=r"PROMPT_TUNING.* cannot be merged"):
        heldout.merge(tmp_path / "prompts", out=tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "prompts"]


def test_nothing_is_left_of_a_merge_that_fails(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    weights = broken / "adapter_model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(UserError):
        heldout.merge(broken, out=tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_the_command_line(folder, tmp_path):
    arguments = ["merge", str(folder), "--out", str(tmp_path / "merged"), "--dtype", "float32"]
    told = CliRunner().invoke(command_line(["merge"]), [*arguments, "--dry-run", "--json"])
    plan = json.loads(told.output)
    assert plan["schema"] == "heldout.merge_plan/1"
    assert plan["dtype"] == "float32"
    assert not (tmp_path / "merged").exists()
    done = CliRunner().invoke(command_line(["merge"]), arguments)
    assert done.exit_code == 0
    assert "Merged into package:heldout, in float32." in done.output.replace("\n", " ")
    size = (tmp_path / "merged" / "model.safetensors").stat().st_size
    assert plan["writes"][str(tmp_path / "merged")] == pytest.approx(size, rel=0.01)


@pytest.mark.slow
def test_a_run_is_merged(tmp_path):
    prose = [{"text": text} for text in articles()[:120]]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, prose)), encoding="utf-8")
    settings = ["train.max_epochs=1", "train.learning_rate=1e-3", "data.max_length=256"]
    run = heldout.fit(
        BASE, tmp_path / "rows.jsonl", out=tmp_path / "run", recipe="lora", settings=settings
    )
    found = heldout.merge(
        run, out=tmp_path / "merged", dtype="bfloat16", gguf=tmp_path / "merged.gguf"
    )
    assert found.base.endswith("demo_model")
    assert found.part == "validation"
    assert not found.is_worse
    kept = run.run.losses("best", "validation")
    unmerged = found.measurement("unmerged").value
    if kept is not None:
        assert unmerged == pytest.approx(kept.nats_per_token, abs=1e-4)
    assert found.gguf.agreement.same_likeliest > 0.99
    told = load_model(str(tmp_path / "merged"), device="cpu")
    assert told.parameters == found.num_parameters


def test_a_dry_run_refuses_what_the_merge_would(folder, tmp_path):
    quantized = shutil.copytree(folder, tmp_path / "quantized")
    note = {"load_in": "4bit", "compute": "float32"}
    (quantized / "quantized_base.json").write_text(json.dumps(note))
    with pytest.raises(UserError, match="was trained on a base in 4bit"):
        heldout.dry_run_merge(quantized, out=tmp_path / "new")


def test_a_copy_is_told_in_chinese():
    from heldout.core.language import say, using

    with using("zh"):
        said = say("Copied all weights, in float16. The loss was not measured.")
    assert said == "已复制全部权重，类型为 float16。未测量损失。"
