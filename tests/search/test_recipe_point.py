import pytest

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe, load_recipe
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


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.max_epoch", 1, "unknown recipe key 'train.max_epoch': did you mean"),
        ("regularizers.mixout.p", 0.1, r"add \[regularizers.mixout\]"),
        ("regularizers.weight_decay", 0.1, "must be regularizers.name.parameter"),
        ("model.method", 1, "model.method is not a number, got 'full'"),
        ("train.batch_size", 1.5, "train.batch_size must be whole numbers, got 1.5"),
        ("train.batch_size", 12, "multiple of train.micro_batch_size"),
        ("regularizers", 1, "must be regularizers.name.parameter"),
        ("name", 1, "name: rows and measurements stay the same"),
        ("data.max_length", 64, "data.max_length: rows and measurements stay the same"),
        ("models.lora_rank", 4, "unknown recipe key 'models.lora_rank': did you mean"),
    ],
)
def test_what_is_no_number_of_the_recipe_is_named(key, value, words):
    with pytest.raises(UserError, match=words):
        with_values(WITH_DECAY, {key: value})
