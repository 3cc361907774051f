"""Which recipe the default is for a model, and what a setting takes the place of."""

import json
import shutil
from importlib import resources

import pytest
import torch
from safetensors.torch import save_file

from heldout.core.errors import UserError
from heldout.core.recipe import DEFAULT, load_recipe
from heldout.jobs.kit.chosen_recipe import recipe_for
from heldout.jobs.kit.prepare import regularizers_of
from heldout.jobs.kit.target import Target
from heldout.lm.load import count_parameters, load_model
from heldout.search.recipe_point import with_values

EMBEDDED = "package:heldout"


def folder_of_width(tmp_path, width):
    """A model by its configuration, with a file of weights that nobody reads."""
    embedded = resources.files("heldout") / "assets" / "demo_model"
    config = json.loads((embedded / "config.json").read_text())
    config |= {"hidden_size": width, "intermediate_size": 4 * width}
    config |= {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": width // 8}
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(str(embedded / "tokenizer.json"), folder)
    save_file({"nothing": torch.zeros(1)}, folder / "model.safetensors")
    return str(folder)


def default_for(model, *settings, from_scratch=""):
    return recipe_for(Target.of(model, from_scratch), DEFAULT, settings).name


def test_parameters_are_counted_as_loading_counts_them():
    loaded = load_model(EMBEDDED, device="cpu")
    assert count_parameters(EMBEDDED) == loaded.parameters


def test_the_default_goes_by_the_size_of_the_model(tmp_path):
    wide = folder_of_width(tmp_path, 768)
    assert count_parameters(wide) > 20_000_000
    assert default_for(EMBEDDED) == "full"
    assert default_for(wide) == "lora"
    assert default_for(wide, from_scratch="config.json") == "full"


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("model.method=lora", "lora"),
        ("model.lora_rank=4", "lora"),
        ("model.adapter=dora", "lora"),
        ("train.seed=1", "full"),
    ],
)
def test_settings_that_one_recipe_alone_has_decide_first(setting, name):
    assert default_for(EMBEDDED, setting) == name


def test_a_named_method_decides_for_large_models(tmp_path):
    assert default_for(folder_of_width(tmp_path, 768), "model.method=full") == "full"


def test_an_adapter_is_gone_on_with(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"base_model_name_or_path": EMBEDDED, "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"nothing": torch.zeros(1)}, folder / "adapter_model.safetensors")
    assert default_for(str(folder)) == "lora"


def test_a_setting_takes_the_place_of_what_it_cannot_stand_beside():
    own = load_recipe("full").regularizers
    assert own["weight_decay"] == {"shrink_per_epoch": 0.1}
    assert own["ema"] == {"horizon": 1.0}
    changed = load_recipe("full", ["regularizers.weight_decay.rate=1", "regularizers.ema.decay=.9"])
    assert changed.regularizers["weight_decay"] == {"rate": 1}
    assert changed.regularizers["ema"] == {"decay": 0.9}
    regularizers_of(changed)
    point = with_values(load_recipe("full"), {"regularizers.weight_decay.rate": 0.5})
    assert point.regularizers["weight_decay"] == {"rate": 0.5}
    kept = load_recipe("full", ["regularizers.weight_decay.embeddings=false"])
    assert kept.regularizers["weight_decay"] == {"shrink_per_epoch": 0.1, "embeddings": False}


@pytest.mark.parametrize(
    "settings",
    [
        ["regularizers.weight_decay.rate=1", "regularizers.weight_decay.shrink_per_epoch=2"],
        ["regularizers.weight_decay={shrink_per_epoch=2}", "regularizers.weight_decay.rate=1"],
        ["regularizers.ema.horizon=1", "regularizers.ema.decay=.9"],
    ],
)
@pytest.mark.parametrize("recipe", ["full", "plain"])
def test_two_settings_that_say_it_twice_are_refused(recipe, settings):
    with pytest.raises(UserError, match="twice"):
        regularizers_of(load_recipe(recipe, settings))
