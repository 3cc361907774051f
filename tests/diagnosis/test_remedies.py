import ast
import dataclasses
import re

import pytest
import yaml
from trl import SFTConfig

from heldout.core.facts import Facts, HistoryPoint
from heldout.core.recipe import load_recipe
from heldout.core.verdict import Cause
from heldout.diagnosis.causes import find_causes, read_rules
from heldout.diagnosis.remedies import read_remedies, remedies_for

TRAINERS = {"heldout", "trl", "axolotl", "llama-factory", "unsloth"}
KNOWN = Facts(
    history=tuple(
        HistoryPoint(10 * i, float(i), validation_nll=loss)
        for i, loss in enumerate((4.0, 3.6, 3.5, 3.9, 4.2, 4.4))
    ),
    epochs=5.0,
    learning_rate=3e-4,
)


def cause(name):
    return Cause(name, 0.9, (), (), "")


def all_remedies(facts):
    return remedies_for([cause(rule.name) for rule in read_rules().rules], facts)


def test_every_cause_has_a_remedy_for_every_trainer():
    found = all_remedies(KNOWN)
    assert {remedy.cause for remedy in found} == {rule.name for rule in read_rules().rules}
    for remedy in found:
        assert set(remedy.settings) == TRAINERS, remedy.name
        assert remedy.effect, remedy.name


def test_settings_of_this_tool_are_settings():
    settings = {
        setting
        for remedy in all_remedies(KNOWN)
        for setting in re.findall(r"--set ([^\s,;]+)", remedy.settings["heldout"])
    }
    for setting in settings:
        assert load_recipe("default", [setting]) is not None  # UserError for what is none
    assert len(settings) > 10


def runnable(text):
    """The command or code of a setting, without its comment; "" where there is none."""
    said = text.startswith(("nothing to set: ", "no counterpart"))
    return "" if said else text.split("  # ")[0]


@pytest.mark.parametrize("trainer", ["trl", "unsloth"])
def test_settings_in_python_are_arguments_or_a_call(trainer):
    known = {field.name for field in dataclasses.fields(SFTConfig)}
    for remedy in all_remedies(KNOWN):
        code = runnable(remedy.settings[trainer])
        if not code:
            continue
        if code.startswith("heldout."):
            ast.parse(code)
            continue
        for keyword in ast.parse(f"dict({code})").body[0].value.keywords:
            if (
                isinstance(keyword.value, ast.Call)
                and ast.unparse(keyword.value.func) == "SFTConfig"
            ):
                assert {each.arg for each in keyword.value.keywords} <= known, remedy.name


@pytest.mark.parametrize("trainer", ["axolotl", "llama-factory"])
def test_settings_in_yaml_are_lines_of_it(trainer):
    for remedy in all_remedies(KNOWN):
        text = runnable(remedy.settings[trainer])
        if text:
            found = yaml.safe_load(text.replace("; ", "\n"))
            assert all(value is not None for value in found.values()), remedy.name


def test_what_axolotl_0_19_0_and_llama_factory_0_9_5_refuse_is_not_written():
    for remedy in all_remedies(KNOWN):
        axolotl, factory = (
            yaml.safe_load(runnable(remedy.settings[name]).replace("; ", "\n") or "{}")
            for name in ("axolotl", "llama-factory")
        )
        for rows in [*axolotl.get("datasets", []), *axolotl.get("test_datasets", [])]:
            assert "type" in rows, remedy.name  # without it the tokenization fails
        if "early_stopping_patience" in axolotl:
            assert axolotl["save_steps"] % axolotl["eval_steps"] == 0, remedy.name
        # They must be as many as there are eval datasets, too.
        assert "interleave_probs" not in factory, remedy.name


def test_settings_carry_the_figures_of_the_run():
    first, *_ = remedies_for(find_causes([], KNOWN), KNOWN)
    assert first.name == "stop_at_the_best_epoch"
    assert "train.max_epochs=2 " in first.settings["heldout"]
    assert yaml.safe_load(first.settings["axolotl"].replace("; ", "\n"))["num_epochs"] == 2
    (lower, _) = remedies_for([cause("learning_rate_too_high")], KNOWN)
    assert "train.learning_rate=0.0001" in lower.settings["heldout"]


def test_a_setting_without_its_figure_is_left_out():
    (lower, _) = remedies_for([cause("learning_rate_too_high")], Facts())
    assert lower.settings == {}
    (lower, _) = remedies_for([cause("learning_rate_too_high")], Facts(learning_rate=0.3))
    assert set(lower.settings) == TRAINERS


def test_the_largest_measured_gain_comes_first():
    gains = {known.remedy.name: known.gain for known in read_remedies()}
    found = [gains[remedy.name] for remedy in remedies_for([cause("weak_regularization")], KNOWN)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0
