"""Each key that is not its default changes what is exported, or a comment names it."""

import dataclasses
import re
import typing

import pytest

import heldout
from heldout.core.discovery import entries_of
from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.jobs.exporting.export_recipe import TRAINERS
from heldout.jobs.exporting.recipe_to_export import RecipeToExport

SECTIONS = ("data", "model", "train", "search", "eval", "control", "hyperfit")
GIVEN = {  # where another value cannot be had from the default
    "data.columns": {"text": "body"},
    "data.template_arguments": {"enable_thinking": False},
    "data.key_facts": (r"\d{5}",),
    "search.learning_rates": (1e-4, 2e-4),
    "search.ranges": {"train.learning_rate": (1e-4, 1e-3)},
    "train.learning_rate": 3e-4,
    "train.report_to": ("tensorboard",),
    "train.batch_size": 16,
    "train.micro_batch_size": 4,
    "hyperfit.repetition_penalty": 1.4,
    "model.tie_weights": False,
    "model.lora_targets": "q_proj, v_proj",
}


def another(key, value, hint):
    if key in GIVEN:
        return GIVEN[key]
    if choices := [one for one in getattr(hint, "__args__", ()) if isinstance(one, str)]:
        return next(one for one in choices if one != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 3
    if isinstance(value, float):
        return value / 2 if value else 0.25
    if isinstance(value, str):
        return "something"
    raise AssertionError(f"{key}: say in GIVEN what else it can be than {value!r}")


def recipes():
    for section in SECTIONS:
        usual = getattr(Recipe(), section)
        hints = typing.get_type_hints(type(usual))
        for field in dataclasses.fields(usual):
            key = f"{section}.{field.name}"
            value = another(key, getattr(usual, field.name), hints[field.name])
            yield key, Recipe().replace(**{section: {field.name: value}})


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_key_is_held_or_named(trainer):
    assert not lost_keys(trainer)
    assert len(list(recipes())) > 70


def lost_keys(trainer):
    before = code(exported(Recipe(), trainer))
    return [
        key
        for key, recipe in recipes()
        if code(text := exported(recipe, trainer)) == before and not named(key, text)
    ]


def exported(recipe, trainer, kind="completion"):
    rate = recipe.train.learning_rate
    return TRAINERS[trainer](RecipeToExport("r", recipe, kind=kind, learning_rate=rate))


def code(text):
    return [line for line in text.splitlines() if not line.startswith("#")]


def named(key, text):
    notes = " ".join(line for line in text.splitlines() if line.startswith("#"))
    return key in notes


def parameters():
    """Each parameter of each regularizer, where another value is accepted."""
    for entry in entries_of("regularizer"):
        made = getattr(heldout, entry.class_name)
        for field in dataclasses.fields(made):
            if not field.init or field.default is dataclasses.MISSING:
                continue
            for value in candidates(field.default):
                try:
                    made(**{field.name: value})
                except (UserError, TypeError, ValueError):
                    continue
                yield entry.name, field.name, value
                break


def candidates(default):
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, (int, float)) or default is None:
        return [0.37, 7, 0.5]
    return ["mlp", "layers.0"] if isinstance(default, str) else []


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_parameter_of_a_regularizer_is_held_or_named(trainer):
    assert not lost_parameters(trainer)
    assert len(list(parameters())) > 40


def lost_parameters(trainer):
    before = exported(Recipe(), trainer).splitlines()
    lost = []
    for name, parameter, value in parameters():
        recipe = dataclasses.replace(Recipe(), regularizers={name: {parameter: value}})
        added = [line for line in exported(recipe, trainer).splitlines() if line not in before]
        written = re.escape(f"{value:g}" if isinstance(value, float) else str(value))
        if not any(re.search(rf"(?<![\d.]){written}(?!\d)", line) for line in added):
            lost.append(f"{name}.{parameter}={value}")
    return lost
