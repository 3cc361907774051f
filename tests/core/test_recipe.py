import tomllib

import pytest

from heldout.core.errors import UserError
from heldout.core.recipe import (
    DataSection,
    Recipe,
    load_recipe,
    recipe_from_table,
    recipe_names,
    same_settings,
)
from heldout.core.search_space import Between


@pytest.mark.parametrize("name", recipe_names())
def test_ready_recipes_load_and_survive_toml(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe_from_table(tomllib.loads(recipe.to_toml())) == recipe


def test_settings_reach_every_kind_of_field():
    recipe = load_recipe(
        "default",
        [
            "train.learning_rate=1e-3",
            "train.max_epochs=3",
            "data.columns.prompt=question",
            "data.group=country",
            "search.learning_rates=[1e-4, 1e-3]",
            "regularizers.weight_decay.rate=1.0",
            "regularizers.label_smoothing.amount=.1",
            "regularizers.dropout=false",
            "augment.word_dropout=true",
            "augment.masking.rate=.2",
            "train.report_to=tensorboard",
        ],
    )
    assert recipe.train.learning_rate == 1e-3
    assert recipe.train.max_epochs == 3.0
    assert recipe.data.columns == {"prompt": "question"}
    assert recipe.search.learning_rates == (1e-4, 1e-3)
    assert recipe.regularizers["weight_decay"] == {"rate": 1.0}
    assert "dropout" not in recipe.regularizers
    assert recipe.augment == {"word_dropout": {}, "masking": {"rate": 0.2}}
    assert recipe_from_table(tomllib.loads(recipe.to_toml())) == recipe
    assert recipe.train.report_to == ("tensorboard",)


def test_ranges_are_written_as_tables_or_as_dotted_keys():
    written = """
    [search.ranges]
    train.max_epochs = [1, 2]
    "train.learning_rate" = { low = 1e-3, high = 2e-3, log = true }
    train.schedule = ["linear", "constant"]
    [search.ranges.regularizers.weight_decay]
    used = [true, false]
    rate = [0, 0.1]
    """
    recipe = recipe_from_table(tomllib.loads(written))
    assert recipe.search.ranges == {
        "train.max_epochs": (1.0, 2.0),
        "train.learning_rate": Between(1e-3, 2e-3, log=True),
        "train.schedule": ("linear", "constant"),
        "regularizers.weight_decay.used": (True, False),
        "regularizers.weight_decay.rate": (0.0, 0.1),
    }
    assert recipe_from_table(tomllib.loads(recipe.to_toml())) == recipe
    bare = load_recipe("default", ["search.learning_rates=[.001, 1e-2]"])
    assert bare.search.learning_rates == (0.001, 0.01)
    one = load_recipe("pretrain_little_data", ["search.ranges.train.max_epochs=[2, 16]"])
    assert one.search.ranges["train.max_epochs"] == (2.0, 16.0)
    assert "train.learning_rate" in one.search.ranges, "the others stay"
    assert not load_recipe("pretrain_little_data", ["search.ranges={}"]).search.ranges


def test_ranges_are_read_by_their_earlier_name_too():
    earlier = recipe_from_table({"search": {"grids": {"train": {"max_epochs": [1, 2]}}}})
    assert earlier.search.ranges == {"train.max_epochs": (1.0, 2.0)}
    assert earlier == recipe_from_table({"search": {"ranges": {"train.max_epochs": [1, 2]}}})
    one = load_recipe("pretrain_little_data", ["search.grids.train.max_epochs=[2, 16]"])
    assert one.search.ranges["train.max_epochs"] == (2.0, 16.0)
    assert not load_recipe("pretrain_little_data", ["search.grids={}"]).search.ranges


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "search.ranges.train.max_epochs=[2, 1]",
            "max_epochs must be rising numbers, different",
        ),
        (
            "search.ranges.train.max_epochs=[]",
            "max_epochs must be rising numbers, different",
        ),
        (
            "search.ranges.train.max_epochs={low=2}",
            "must be { low = ..., high = ... }",
        ),
        ("search.ranges.train.max_epochs={low=2, high=1}", "with low under high"),
        (
            "search.ranges.train.max_epochs={low=0, high=1, log=true}",
            "low must be above 0",
        ),
        ("search.ranges.train.schedule=[constant, constant]", "different words"),
        ("search.ranges.regularizers.ema.used=[true]", "[true, false]"),
        ("search.ranges=3", "search.ranges must be a table"),
        ("search.sampler=best", "must be one of 'coordinate', 'tpe', 'gp', 'random', got 'best'"),
        ("search.ranges.train.max_epochs=many", "log = true }, got 'many'."),
        (
            "train.learning_rat=1",
            "Unknown recipe key 'train.learning_rat': did you mean 'learning_rate'?",
        ),
        ("trian.seed=1", "did you mean 'train'?"),
        ("train.batch_size=0", "train.batch_size must be 1 or more, got 0."),
        ("train.batch_size=12", "multiple of train.micro_batch_size (8), got 12."),
        ("train.batch_size=many", "train.batch_size must be a whole number, got 'many'."),
        ("train.seed=true", "train.seed must be a whole number, got True."),
        ("model.method=lorra", "model.method must be one of 'lora', 'full', got 'lorra'."),
        ("data.test_share=.9", "data.test_share must be at least 0 and under 0.8"),
        ("data.max_length=4", "8 tokens or more, got 4"),
        ("data.key_facts=['(']", "data.key_facts must be regular expressions, got ('(',)."),
        ("train=3", "train is a section"),
        ("nonsense", "--set must be key=value"),
    ],
)
def test_bad_settings_are_told_in_one_line(setting, words):
    with pytest.raises(UserError) as error:
        load_recipe("default", [setting])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_what_a_recipe_does_not_have_can_be_left_out():
    settings = ["regularizers.ema=false", "augment.masking=false"]
    assert load_recipe("plain", settings) == load_recipe("plain")
    assert "ema" not in load_recipe("full", settings).regularizers
    with pytest.raises(UserError, match="did you mean 'ema'"):
        load_recipe("full", ["regularizers.emma=false"])


def test_unknown_recipes_and_files(tmp_path):
    with pytest.raises(UserError, match="did you mean 'default'"):
        load_recipe("defalt")
    with pytest.raises(UserError, match="no such file"):
        load_recipe("somewhere/recipe.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("a = = 1")
    with pytest.raises(UserError, match="is not TOML"):
        load_recipe(broken)


@pytest.mark.parametrize("text", ['a "b" \\ c\nd', "\t\r\n \x00\x07\x1b\x7f", "\x85\u2028 ü"])
def test_any_text_survives_toml(text):
    recipe = Recipe(name=text, data=DataSection(columns={text: text}, key_facts=(text,)))
    assert recipe_from_table(tomllib.loads(recipe.to_toml())) == recipe


def test_notes_of_settings_agree_however_their_recipe_is_laid_out():
    recipe = load_recipe("pretrain_little_data")
    note = {"model": "m", "recipe": recipe.to_toml()}
    # As version 0.1 wrote it: lists and tables within one line.
    columns = 'description = ""\n[data]\ncolumns = {"prompt" = "question"}\nkey_facts = ["a", "b"]'
    early = {"model": "m", "recipe": columns}
    data = DataSection(columns={"prompt": "question"}, key_facts=("a", "b"))
    assert same_settings(early, {"model": "m", "recipe": Recipe(data=data).to_toml()})
    assert same_settings(note, note)
    assert not same_settings(early, note)
    assert not same_settings({**note, "model": "other"}, note)
    assert not same_settings({}, note)
