"""All weights of a model or an adapter find their place, or one line says which do not."""

import json
import shutil
import sys
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from heldout.cli.main import main
from heldout.core.errors import UserError
from heldout.lm.adapters import adapter_start
from heldout.lm.load import load_model
from heldout.regularizers.kl_to_base import KLToBase

IDS = torch.tensor([[5, 6, 7, 8]])


def load(target, **options):
    return load_model(str(target), device="cpu", **options)


def refused(target) -> str:
    with pytest.raises(UserError) as caught:
        load(target)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@torch.no_grad()
def logits_of(model):
    return model.eval()(IDS).logits


@pytest.fixture
def folder(tiny_model_dir, tmp_path):
    return shutil.copytree(tiny_model_dir, tmp_path / "model")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(path, change):
    weights = {key: value.contiguous() for key, value in change(load_file(path)).items()}
    save_file(weights, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": "wide"}, "cannot be loaded: Field 'hidden_size' expected int, got str"),
        ({"num_attention_heads": 5}, "hidden size (32) is not a multiple of the number of att"),
        (
            {"num_hidden_layers": -1},
            "num_hidden_layers in config.json must be between 1 and 10000",
        ),
        ({"num_hidden_layers": 1}, "has weights of more layers than config.json says, such as"),
        ({"hidden_act": "sharp"}, "cannot be loaded: 'sharp' is missing or not known."),
        ({"intermediate_size": 80}, "64 in the file, 32 x 80 by the configuration. Use the config"),
        ({"dtype": "float99"}, "has no attribute 'float99'"),
    ],
)
def test_configurations(change, words, folder):
    edit(folder / "config.json", **change)
    assert words in refused(folder)


def test_a_tokenizer_of_nothing(folder):
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer of model" in refused(folder)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(number, folder, tmp_path, monkeypatch, capsys):
    def spoil(weights):
        weights["model.layers.1.mlp.up_proj.weight"][3, 1] = number
        return weights

    change_weights(folder / "model.safetensors", spoil)
    assert "1 of 2048 numbers of model.layers.1.mlp.up_proj.weight are NaN" in refused(folder)
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"text": f"Row {i} of it."}) + "\n" for i in range(40)))
    command = ["fit", "--model", str(folder), "--data", str(data), "--dry-run", "--out", "run"]
    monkeypatch.setattr(sys, "argv", ["heldout", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "are NaN or infinite: its training diverged" in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_of_wrappers_are_taken_off(prefix, folder, tiny_model_dir):
    change_weights(
        folder / "model.safetensors", lambda weights: {prefix + k: v for k, v in weights.items()}
    )
    found = logits_of(load(folder).model)
    assert torch.equal(found, logits_of(load(tiny_model_dir).model))


@pytest.fixture
def adapted(tiny_model_dir):
    torch.manual_seed(0)
    options = {"r": 2, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM"}

    def build(**more):
        base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        model = get_peft_model(base, LoraConfig(**{**options, **more}))
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
        return model

    return build


@pytest.fixture
def adapter(adapted, tmp_path):
    model = adapted()
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", logits_of(model)


CHANGES = {
    "other names": (lambda w: {k.replace("layers", "h"): v for k, v in w.items()}, "8 of 8 weig"),
    "half of them": (lambda w: dict(sorted(w.items())[:4]), "4 of 8 weights are not in its file"),
    "one more": (lambda w: {**w, "base_model.model.odd.lora_A.weight": IDS.float()}, "1 weights "),
    "another shape": (lambda w: {k: torch.zeros(5, 3) for k in w}, "is 5 x 3 in its file and 2 x"),
    "not a number": (lambda w: {k: v * torch.nan for k, v in w.items()}, "are NaN or infinite"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_adapters_whose_weights_do_not_fit(name, adapter):
    change, words = CHANGES[name]
    change_weights(adapter[0] / "adapter_model.safetensors", change)
    assert words in refused(adapter[0])


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: f"module.{key}",
        lambda key: f"_orig_mod.{key}",
        lambda key: key.replace("base_model.model.", "base_model.model._orig_mod."),
    ],
)
def test_adapters_saved_inside_a_wrapper(rename, adapter):
    folder, expected = adapter
    change_weights(
        folder / "adapter_model.safetensors", lambda w: {rename(k): v for k, v in w.items()}
    )
    torch.testing.assert_close(logits_of(load(folder).model), expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_model_name_or_path": 7}, "must be the path or Hub id of a model, in quotes, got 7"),
        ({"base_model_name_or_path": "."}, "is its own base by base_model_name_or_path"),
        ({"base_model_name_or_path": "../adapter/../adapter"}, "is its own base by"),
        ({"peft_type": "NOVEL"}, "must be one of PEFT's, such as LORA, got 'NOVEL'"),
        ({"init_lora_weights": "pissa_niter_4"}, "began as pissa_niter_4, which took a part of"),
        ({"init_lora_weights": "lora_ga"}, "path_initial_model_for_weight_conversion"),
    ],
)
def test_adapter_configurations(change, words, adapter):
    edit(adapter[0] / "adapter_config.json", **change)
    assert words in refused(adapter[0])


def test_two_adapters_that_are_each_other_s_base(adapter, tmp_path):
    shutil.copytree(adapter[0], tmp_path / "second")
    edit(adapter[0] / "adapter_config.json", base_model_name_or_path="../second")
    edit(tmp_path / "second" / "adapter_config.json", base_model_name_or_path="../adapter")
    assert "is its own base" in refused(adapter[0])


@pytest.mark.parametrize("beginning", ["pissa", "olora"])
def test_a_trained_adapter_brings_its_beginning_along(beginning, adapted, tmp_path, tiny_model_dir):
    model = adapted(init_lora_weights=beginning)
    model.save_pretrained(tmp_path)
    kept = load(tmp_path, merge_adapter=False).model
    torch.testing.assert_close(logits_of(kept), logits_of(model))
    torch.testing.assert_close(logits_of(load(tmp_path).model), logits_of(model))
    for name, parameter in kept.named_parameters():
        parameter.requires_grad_("lora_" in name)
    KLToBase().prepare(kept)
    with torch.no_grad():
        for name, value in adapter_start(kept).items():
            kept.get_parameter(name).copy_(value)
    plain = logits_of(load(tiny_model_dir).model)
    torch.testing.assert_close(logits_of(kept), plain, atol=2e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_tokens_that_were_added_in_training(adapted, tiny_tokenizer, tmp_path, tiny_model_dir):
    tokenizer = type(tiny_tokenizer).from_pretrained(tiny_model_dir)
    tokenizer.add_tokens(["<one>", "<two>"])
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    base.resize_token_embeddings(len(tokenizer))
    config = LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True
    )
    model = get_peft_model(base, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    edit(tmp_path / "adapter_config.json", base_model_name_or_path=str(tiny_model_dir))
    loaded = load(tmp_path)
    assert loaded.model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    with torch.no_grad():
        ids = torch.tensor([[5, len(tokenizer) - 1]])
        torch.testing.assert_close(loaded.model(ids).logits, model.eval()(ids).logits)


def test_folders_of_other_tools(adapter, folder, tmp_path):
    name = adapter[0]
    merged = shutil.copytree(folder, tmp_path / "merged")
    shutil.copy(name / "adapter_config.json", merged)
    assert "if the adapter is merged into it, delete adapter_config.json" in refused(merged)

    mlx = tmp_path / "mlx"
    mlx.mkdir()
    save_file(
        {"model.layers.0.self_attn.q_proj.lora_a": torch.ones(32, 2)}, mlx / "adapters.safetensors"
    )
    (mlx / "adapter_config.json").write_text('{"fine_tune_type": "lora", "num_layers": 2}')
    assert f"`mlx_lm.fuse --model BASE --adapter-path {mlx} --save-path MERGED`" in refused(mlx)

    several = tmp_path / "several"
    for each in ("law", "medicine"):
        shutil.copytree(name, several / each)
    assert f"holds adapters by name (law, medicine): give one of them, such as {several}/law" in (
        refused(several)
    )
    assert load(several / "law").adapter_of

    deepspeed = tmp_path / "deepspeed" / "checkpoint-5"
    (deepspeed / "global_step5").mkdir(parents=True)
    (deepspeed / "zero_to_fp32.py").write_text("")
    (deepspeed / "global_step5" / "mp_rank_00_model_states.pt").write_bytes(b"")
    assert f"`python {deepspeed}/zero_to_fp32.py" in refused(tmp_path / "deepspeed")

    shards = tmp_path / "fsdp" / "checkpoint-5" / "pytorch_model_fsdp_0"
    warnings.filterwarnings("ignore", ".*assuming the intent is to save in a single process")
    dcp.save({"model": load_file(folder / "model.safetensors")}, checkpoint_id=shards, no_dist=True)
    assert f"`accelerate merge-weights {shards} MERGED`" in refused(tmp_path / "fsdp")
