import re

import pytest

from heldout.core.discovery import packages_of
from heldout.core.errors import UserError
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.search_space import USED
from heldout.search.recipe_point import value_at, with_values

WITH_DECAY = load_recipe("full", ["regularizers.weight_decay.rate=0.1", "augment.masking.rate=.2"])


def test_numbers_of_sections_and_plugins_are_read_and_put_in():
    values = {
        "train.learning_rate": 2e-3,
        "train.batch_size": 16.0,
        "regularizers.weight_decay.rate": 0.8,
        "augment.masking.rate": 0.4,
    }
    changed = with_values(WITH_DECAY, values)
    assert {key: value_at(changed, key) for key in values} == values
    assert isinstance(changed.train.batch_size, int)
    assert changed.regularizers.keys() == WITH_DECAY.regularizers.keys()
    assert value_at(WITH_DECAY, "regularizers.weight_decay.rate") == 0.1, "a copy was changed"
    assert value_at(Recipe(), "train.learning_rate") is None


def test_words_and_techniques_are_put_in_and_taken_out():
    values = {
        "regularizers.weight_decay.rate": 0.8,
        "regularizers.ema.decay": 0.9,
        "regularizers.ema.used": True,
        "augment.masking.used": False,
        "train.schedule": "linear",
    }
    changed = with_values(WITH_DECAY, values)
    assert changed.train.schedule == "linear"
    assert changed.regularizers["ema"] == {"decay": 0.9}
    assert not changed.augment
    assert {key: value_at(changed, key) for key in values} == values
    back = with_values(WITH_DECAY, {"augment.masking.used": True})
    assert back == WITH_DECAY, "it comes with the parameters of the recipe"


def test_no_technique_has_a_parameter_that_is_called_as_its_own_presence():
    for room in ("regularizers", "augment"):
        for _, folder in packages_of(room):
            for file in folder.glob("*.py"):
                field = re.search(
                    rf"^    {USED.removeprefix('.')}:", file.read_text(), re.MULTILINE
                )
                assert field is None, file.name


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.max_epoch", 1, "unknown recipe key 'train.max_epoch': did you mean"),
        ("regularizers.mixout.p", 0.1, r"add \[regularizers.mixout\]"),
        ("regularizers.weight_decay", 0.1, "must be regularizers.name.parameter"),
        ("model.method", 1, "model.method must be one of 'lora', 'full', got 1"),
        ("train.batch_size", 1.5, "train.batch_size must be a whole number, got 1.5"),
        ("train.batch_size", 12, "multiple of train.micro_batch_size"),
        ("regularizers", 1, "must be regularizers.name.parameter"),
        ("name", 1, "name: rows and measurements stay the same"),
        ("data.max_length", 64, "data.max_length: rows and measurements stay the same"),
        ("train.schedule", "falling", "must be one of 'constant', 'linear', 'cosine', got 'fall"),
        ("train.report_to", "wandb", "train.report_to holds several values"),
        ("models.lora_rank", 4, "unknown recipe key 'models.lora_rank': did you mean"),
    ],
)
def test_what_is_no_number_of_the_recipe_is_named(key, value, words):
    with pytest.raises(UserError, match=words):
        with_values(WITH_DECAY, {key: value})
