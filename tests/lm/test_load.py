"""Everything that can be loaded is, as it is; everything else is refused in one line."""

import copy
import json
import shutil

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM, T5Config

from heldout.core.errors import UserError
from heldout.lm import gguf
from heldout.lm.load import from_scratch, load_model, load_tokenizer
from heldout.lm.source import find_source

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def folder(tiny_model_dir, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(tiny_model_dir, tmp_path / "model")


@pytest.fixture(scope="module")
def logits(tiny_model_dir):
    return plain_logits(AutoModelForCausalLM.from_pretrained(tiny_model_dir))


@torch.no_grad()
def plain_logits(model):
    return model.eval()(IDS).logits


def load(target, **options):
    return load_model(str(target), device="cpu", **options)


def refused(target, **options) -> str:
    with pytest.raises(UserError) as caught:
        load(target, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_folder(tiny_model_dir, logits):
    loaded = load(tiny_model_dir)
    assert torch.equal(plain_logits(loaded.model), logits)
    assert not loaded.model.training
    assert loaded.parameters == sum(p.numel() for p in loaded.model.parameters())
    assert (loaded.name, loaded.adapter_of) == (str(tiny_model_dir), None)


def test_weights_come_in_the_type_asked_for(folder):
    edit_config(folder, dtype="bfloat16", torch_dtype="bfloat16")
    assert {p.dtype for p in load(folder).model.parameters()} == {torch.float32}
    half = load(folder, dtype=torch.bfloat16).model
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_padding_token_is_found_without_resizing(folder, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    edit_config(folder, pad_token_id=None)
    loaded = load(folder)
    assert loaded.tokenizer.pad_token == "<|endoftext|>"
    assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id
    assert loaded.model.get_input_embeddings().weight.shape[0] == len(tiny_tokenizer)


def test_checkpoints_of_a_trainer(tiny_model_dir, tmp_path, logits, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path)
    for step in (9, 10, 100):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(tiny_model_dir / name, checkpoint)
    (tmp_path / "checkpoint-10" / "optimizer.pt").write_bytes(b"")
    assert torch.equal(plain_logits(load(tmp_path / "checkpoint-10").model), logits)
    assert load(tmp_path).name == f"{tmp_path}/checkpoint-100"
    shutil.rmtree(tmp_path / "checkpoint-100")
    assert load(f"{tmp_path}/").name == f"{tmp_path}/checkpoint-10"


@pytest.fixture
def adapter(tiny_model_dir, tmp_path):
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        LoraConfig(target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM"),
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", plain_logits(model)


def test_adapter_is_merged_and_can_be_trained_again(adapter, tiny_model_dir, logits):
    folder, adapted_logits = adapter
    loaded = load(folder)
    assert loaded.adapter_of == str(tiny_model_dir)
    assert not torch.allclose(adapted_logits, logits, atol=1e-3)
    torch.testing.assert_close(plain_logits(loaded.model), adapted_logits)
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    again = get_peft_model(loaded.model, LoraConfig(target_modules=["q_proj"]))
    torch.testing.assert_close(plain_logits(again), adapted_logits)
    kept = load(folder, merge_adapter=False).model
    assert kept.peft_config
    torch.testing.assert_close(plain_logits(kept), adapted_logits)


def test_damaged_adapter(adapter):
    weights = adapter[0] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "damaged or cut short" in refused(adapter[0])


def test_adapter_without_weights_to_merge_is_kept(tiny_model_dir, tmp_path):
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    )
    model.save_pretrained(tmp_path)
    assert load(tmp_path).model.active_peft_config.num_virtual_tokens == 3


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A current folder of this test's own."""
    folder = tmp_path / "one" / "two" / "three"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def test_adapter_checkpoint_beside_its_base(adapter, tiny_model_dir, tmp_path, elsewhere):
    folder, adapted_logits = adapter
    shutil.copytree(tiny_model_dir, tmp_path / "base")
    (elsewhere / "../../base").mkdir()  # means another one from the current folder
    checkpoint = shutil.copytree(folder, tmp_path / "out" / "checkpoint-5")
    path = checkpoint / "adapter_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "base_model_name_or_path": "../../base"}))
    torch.testing.assert_close(plain_logits(load(tmp_path / "out").model), adapted_logits)
    path.write_text(json.dumps({**values, "base_model_name_or_path": "/nowhere/base"}))
    assert "its base cannot be loaded. Model /nowhere/base" in refused(checkpoint)
    path.write_text(json.dumps({**values, "base_model_name_or_path": None}))
    assert "does not name its base" in refused(checkpoint)


def test_adapter_whose_base_lies_in_the_current_folder(adapter, tiny_model_dir, elsewhere):
    folder, adapted_logits = adapter
    shutil.copytree(tiny_model_dir, elsewhere / "models" / "base")
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "base_model_name_or_path": "models/base"}))
    torch.testing.assert_close(plain_logits(load(folder).model), adapted_logits)


def test_adapter_of_another_model(adapter, tmp_path, tiny_tokenizer):
    config = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": 16}
    other = from_scratch(config, tiny_tokenizer, seed=0)
    other.model.save_pretrained(tmp_path / "other")
    tiny_tokenizer.save_pretrained(tmp_path / "other")
    path = adapter[0] / "adapter_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "base_model_name_or_path": str(tmp_path / "other")}))
    assert "does not fit its base" in refused(adapter[0])


def test_what_is_not_there(tmp_path):
    assert "no such folder" in refused(tmp_path / "absent")
    assert "no such folder" in refused("./absent")
    assert "no weights" in refused(tmp_path)
    (tmp_path / "best").mkdir()
    assert "is a run" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert "is a file" in refused(tmp_path / "notes.txt")
    assert "the Hub does not give it" in refused("someone/absent-model")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "adapter_model.bin"])
def test_pickles_are_never_opened(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
    if name.startswith("adapter"):
        (folder / "adapter_config.json").write_text("{}")
    assert f"{name}, a pickle" in refused(folder)


def test_damaged_weights(folder):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for spoiled in (whole[:-100], b"no weights at all", b""):
        weights.write_bytes(spoiled)
        assert "damaged or cut short" in refused(folder)


def test_missing_weights_are_not_drawn_at_random(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in refused(folder)
    edit_config(folder, hidden_size=48)
    assert "weights are of other shapes than config.json says" in refused(folder)


def test_missing_shard(folder):
    index = {
        "metadata": {},
        "weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    assert "cannot be loaded" in refused(folder)


def test_configuration_that_cannot_serve(folder):
    edit_config(folder, model_type="nonesuch")
    assert "cannot be loaded" in refused(folder)
    edit_config(folder, auto_map={"AutoModelForCausalLM": "code.Model"})
    assert "Python code of its own" in refused(folder)
    (folder / "config.json").write_text("{")
    assert "is not JSON" in refused(folder)
    (folder / "config.json").unlink()
    assert "no config.json" in refused(folder)


def test_other_kinds_of_model(tmp_path, tiny_tokenizer):
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    bert = BertForMaskedLM(BertConfig(vocab_size=400, intermediate_size=16, **sizes))
    bert.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    assert "is not a causal language model" in refused(tmp_path)
    T5Config().save_pretrained(tmp_path)
    assert "is an encoder-decoder" in refused(tmp_path)


def test_tokenizers_that_do_not_belong(folder, tiny_tokenizer, tmp_path):
    bigger = copy.deepcopy(tiny_tokenizer)
    bigger.add_tokens(["another"])
    bigger.save_pretrained(folder)
    assert "the tokenizer has 401 tokens but the model only 400" in refused(folder)
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer of model" in refused(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    tiny_tokenizer.save_pretrained(tmp_path)  # around it, but it is no checkpoint
    assert "has no tokenizer" in refused(folder)


def test_package_is_found_without_importing_it(tiny_model_dir, tmp_path, monkeypatch, logits):
    package = tmp_path / "packaged_model"
    shutil.copytree(tiny_model_dir, package / "weights")
    (package / "__init__.py").write_text("raise ImportError('needs a compiler')")
    monkeypatch.syspath_prepend(tmp_path)
    assert torch.equal(plain_logits(load("package:packaged_model").model), logits)
    shutil.copytree(tiny_model_dir, package / "other")
    assert "found other, weights" in refused("package:packaged_model")
    assert torch.equal(plain_logits(load("package:packaged_model/other").model), logits)
    assert "no Python package" in refused("package:absent_package")
    assert "is not a folder" in refused("package:packaged_model/absent")


def test_gguf_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HELDOUT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.gguf").write_bytes(b"GGUF but not really")
    assert find_source(str(tmp_path)).path == tmp_path / "a.gguf"
    assert "cannot be read" in refused(tmp_path)
    assert list((tmp_path / "cache" / "gguf").iterdir()) == []
    (tmp_path / "b.gguf").write_bytes(b"")
    assert "several GGUF files (a.gguf, b.gguf)" in refused(tmp_path)


def test_gguf_is_converted_once(tiny_model_dir, tmp_path, monkeypatch, logits):
    """The reader itself is transformers'; a copy of a folder stands in for it."""
    conversions = []

    def copied(file, partial):
        conversions.append(file)
        shutil.copytree(tiny_model_dir, partial, dirs_exist_ok=True)

    monkeypatch.setenv("HELDOUT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gguf, "_convert", copied)
    for name in ("a.gguf", "copy.gguf"):
        (tmp_path / name).write_bytes(b"the same content")
        loaded = load(tmp_path / name)
        assert torch.equal(plain_logits(loaded.model), logits)
        assert loaded.name == str(tmp_path / name)
    assert len(conversions) == 1
    (tmp_path / "other.gguf").write_bytes(b"other content")
    monkeypatch.setattr(gguf, "_convert", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load(tmp_path / "other.gguf")
    assert len(list((tmp_path / "cache" / "gguf").iterdir())) == 1


def test_from_scratch_draws_from_its_seed_alone(tiny_tokenizer, tiny_model_dir):
    config = json.loads((tiny_model_dir / "config.json").read_text())
    state = torch.get_rng_state()
    first = from_scratch(config, tiny_tokenizer, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    again = from_scratch(tiny_model_dir / "config.json", str(tiny_model_dir), seed=1)
    other = from_scratch(str(tiny_model_dir), tiny_tokenizer, seed=2)
    torch.set_rng_state(state)
    assert torch.equal(plain_logits(first.model), plain_logits(again.model))
    assert not torch.equal(plain_logits(first.model), plain_logits(other.model))
    assert first.model.config.eos_token_id == tiny_tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "model_type must be a causal model"),
        ({"model_type": "t5"}, "model_type must be a causal model"),
        ({"model_type": "llama", "hidden_size": 30, "num_attention_heads": 7}, "can be built"),
        ({"model_type": "llama", "vocab_size": 10, "hidden_size": 8, "num_attention_heads": 2,
          "num_hidden_layers": 1}, "the tokenizer has 400 tokens"),
        ({"model_type": "bert"}, "is not a causal language model"),
    ],
)  # fmt: skip
def test_from_scratch_refuses(config, words, tiny_tokenizer):
    with pytest.raises(UserError, match=words):
        from_scratch(config, tiny_tokenizer, seed=0)


def test_tokenizer_alone(tiny_model_dir, tiny_tokenizer):
    tokenizer = load_tokenizer(str(tiny_model_dir))
    assert tokenizer("a line")["input_ids"] == tiny_tokenizer("a line")["input_ids"]
