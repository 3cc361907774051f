"""Folders of models that are none, or broken ones, and what is expected of each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults_materials import Materials

Maker = Callable[[Path, Materials], str]


def copied(at: Path, materials: Materials) -> Path:
    return Path(shutil.copytree(materials.model, at / "model"))


def with_config(**values: Any) -> Maker:
    """The model with these values in its config.json; None leaves a key out."""

    def make(at: Path, materials: Materials) -> str:
        path = copied(at, materials) / "config.json"
        config = json.loads(path.read_text())
        config |= values
        path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
        return "model"

    return make


def with_file(name: str, content: bytes) -> Maker:
    def make(at: Path, materials: Materials) -> str:
        (copied(at, materials) / name).write_bytes(content)
        return "model"

    return make


def without(*names: str) -> Maker:
    def make(at: Path, materials: Materials) -> str:
        folder = copied(at, materials)
        for name in names:
            for path in folder.glob(name):
                path.unlink()
        return "model"

    return make


def with_weights(change: Callable[[dict[str, Any]], None]) -> Maker:
    """The model with changed tensors."""

    def make(at: Path, materials: Materials) -> str:
        from safetensors.torch import load_file, save_file

        path = copied(at, materials) / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, {"format": "pt"})
        return "model"

    return make


def cut_weights(at: Path, materials: Materials) -> str:
    path = copied(at, materials) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    return "model"


def lacks_a_tensor(tensors: dict[str, Any]) -> None:
    del tensors["model.layers.0.mlp.up_proj.weight"]


def has_another_shape(tensors: dict[str, Any]) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name][:-1].clone()


def is_not_a_number(tensors: dict[str, Any]) -> None:
    tensors["model.norm.weight"][0] = float("nan")


def is_infinite(tensors: dict[str, Any]) -> None:
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = float("inf")


def an_index(files: str) -> Maker:
    def make(at: Path, materials: Materials) -> str:
        folder = copied(at, materials)
        (folder / "model.safetensors").unlink()
        index = {"metadata": {}, "weight_map": {"model.norm.weight": files}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return "model"

    return make


def a_pickle(at: Path, materials: Materials) -> str:
    folder = copied(at, materials)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    return "model"


def a_template(text: str) -> Maker:
    """The model with this chat template, beside rows of conversations."""

    def make(at: Path, materials: Materials) -> str:
        folder = copied(at, materials)
        (folder / "chat_template.jinja").write_text(text)
        return "model"

    return make


def an_adapter(config: str, weights: bool = True) -> Maker:
    def make(at: Path, materials: Materials) -> str:
        folder = at / "adapter"
        folder.mkdir()
        (folder / "adapter_config.json").write_text(config)
        if weights:
            (folder / "adapter_model.safetensors").write_bytes(b"")
        return "adapter"

    return make


def a_file(name: str, content: bytes) -> Maker:
    def make(at: Path, materials: Materials) -> str:
        (at / name).write_bytes(content)
        return name

    return make


def named(name: str) -> Maker:
    return lambda at, materials: name


def an_empty_folder(at: Path, materials: Materials) -> str:
    (at / "model").mkdir()
    return "model"


def a_loop_of_links(at: Path, materials: Materials) -> str:
    (at / "model").symlink_to("model")
    return "model"


def config_alone(**values: Any) -> Maker:
    def make(at: Path, materials: Materials) -> str:
        (at / "model").mkdir()
        (at / "model" / "config.json").write_text(json.dumps(values))
        return "model"

    return make


LORA = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
CODE = {"AutoModelForCausalLM": "code.Model", "AutoConfig": "code.Config"}

# name -> what makes it, and a pattern of the refusal; "" where the command must go well
MODELS: dict[str, tuple[Maker, str]] = {
    "missing": (named("./nowhere"), "nowhere"),
    "a Hub name": (named("someone/some-model"), "someone/some-model"),
    "an empty package": (named("package:"), "package:"),
    "a package that is none": (named("package:no-such-thing"), "no-such-thing"),
    "a package that climbs": (named("package:../../etc"), r"\.\./\.\./etc"),
    "a package without a model": (named("package:numpy"), "numpy"),
    "an address": (named("https://example.org/model"), "https://example.org/model"),
    "a name of control characters": (named("a\x1b[31mb"), "b"),
    "an empty folder": (an_empty_folder, "model"),
    "a loop of links": (a_loop_of_links, "model"),
    "a text file": (a_file("model.txt", b"hello"), "model.txt"),
    "a pickle alone": (a_file("model.bin", b"\x80\x04N."), "model.bin"),
    "a .gguf of text": (a_file("model.gguf", b"hello"), "model.gguf"),
    "a .gguf that is cut": (
        a_file("model.gguf", b"GGUF\x03\0\0\0" + b"\1\0\0\0\0\0\0\0" * 2),
        "model.gguf",
    ),
    "a .gguf of huge counts": (
        a_file("model.gguf", b"GGUF\x03\0\0\0" + b"\xff" * 16),
        "model.gguf",
    ),
    "no config": (without("config.json"), "model.*config"),
    "a config that is cut": (with_file("config.json", b'{"model_type": "lla'), "model.*config"),
    "a config of a list": (with_file("config.json", b"[]"), "model.*config"),
    "a config of bytes": (with_file("config.json", b"\xff\xfe\x00"), "model.*config"),
    "an unknown kind": (with_config(model_type="martian"), "martian"),
    "no kind": (with_config(model_type=None, architectures=None), "model.*(config|type)"),
    "an encoder": (config_alone(model_type="bert"), "model.*weights"),
    "an encoder and decoder": (config_alone(model_type="t5"), "model.*weights"),
    "a picture model": (config_alone(model_type="vit"), "model.*weights"),
    "code of its own": (with_config(model_type="mine", auto_map=CODE), "trust_remote_code"),
    "no width": (with_config(hidden_size=0), "hidden_size|model"),
    "a negative number of layers": (with_config(num_hidden_layers=-1), "num_hidden_layers|model"),
    "layers in words": (with_config(num_hidden_layers="two"), "num_hidden_layers|model"),
    "a huge width": (with_config(hidden_size=10_000_000), "memory|hidden_size|GB|model"),
    "heads that do not divide": (with_config(num_attention_heads=3), "model"),
    "an unknown activation": (with_config(hidden_act="martian"), "martian|model"),
    "an unknown quantization": (
        with_config(quantization_config={"quant_method": "martian"}),
        "",
    ),
    "more words than rows of the table": (with_config(vocab_size=100), "model"),
    "no weights": (without("model.safetensors"), "model.*weights"),
    "cut weights": (cut_weights, "model.*weights|safetensors"),
    "weights of text": (with_file("model.safetensors", b"hello"), "model.*weights|safetensors"),
    "empty weights": (with_file("model.safetensors", b""), "model.*weights|safetensors"),
    "a missing tensor": (with_weights(lacks_a_tensor), "up_proj|weights"),
    "a tensor of another shape": (with_weights(has_another_shape), "up_proj|weights|shape"),
    "a weight that is no number": (
        with_weights(is_not_a_number),
        "not a number|NaN|finite|infinite",
    ),
    "a weight without bound": (with_weights(is_infinite), "not a number|NaN|finite|infinite"),
    "weights in a pickle": (a_pickle, "pickle"),
    "a part that is missing": (an_index("model-00001-of-00002.safetensors"), "model.*weights"),
    "a part that climbs": (an_index("../../outside.safetensors"), "outside|weights"),
    "no tokenizer": (without("tokenizer*"), "tokenizer"),
    "a tokenizer that is cut": (with_file("tokenizer.json", b'{"version": "1.0", '), "tokenizer"),
    "a tokenizer of a list": (with_file("tokenizer.json", b"[]"), "tokenizer"),
    "settings of the tokenizer cut": (with_file("tokenizer_config.json", b"{"), "tokenizer"),
    "a tokenizer that is unknown": (
        with_file("tokenizer_config.json", b'{"tokenizer_class": "Martian"}'),
        "",
    ),
    "an adapter of nothing": (an_adapter("{}"), "adapter"),
    "an adapter that is cut": (an_adapter('{"peft_type": '), "adapter"),
    "an adapter of a list": (an_adapter("[]"), "adapter"),
    "an adapter without a base": (an_adapter(json.dumps(LORA)), "adapter|base"),
    "an adapter of a missing base": (
        an_adapter(json.dumps({**LORA, "base_model_name_or_path": "./gone"})),
        "gone",
    ),
    "an adapter of itself": (
        an_adapter(json.dumps({**LORA, "base_model_name_or_path": "adapter"})),
        "adapter",
    ),
    "an adapter of an unknown kind": (
        an_adapter(json.dumps({**LORA, "peft_type": "MARTIAN", "base_model_name_or_path": "gpt"})),
        "adapter|MARTIAN|gpt",
    ),
}

TEMPLATES: dict[str, tuple[Maker, str]] = {
    "a template that is broken": (a_template("{% for %}"), "template"),
    "a template that refuses": (a_template("{{ raise_exception('never') }}"), "template|never"),
    "a template of nothing": (a_template(" "), "template"),
    "a template that reaches for attributes": (
        a_template("{{ messages.__class__.__mro__[1].__subclasses__() }}"),
        "template",
    ),
    "a template that reaches for globals": (
        a_template("{{ raise_exception.__globals__['os'].system('touch pwned') }}"),
        "template",
    ),
    "a template that changes its rows": (
        a_template("{% set x = messages.append({'role': 'user'}) %}{{ messages[0]['content'] }}"),
        "template",
    ),
    "a template of a long loop": (
        a_template(
            "{% for i in range(10000000) %}{% for j in range(10000000) %}x{% endfor %}{% endfor %}"
        ),
        "template",
    ),
    "a template that leaves answers out": (
        a_template("{{ messages[0]['content'] }}"),
        "template|answer",
    ),
}
