"""The model card: what the Hub reads of it, and what a person does."""

import re

import made_up_run
import pytest
from huggingface_hub import ModelCard

from heldout.core.recipe import load_recipe
from heldout.report.card import MOST_FIGURES, card_metadata, model_card

LOCAL = "/home/someone/models/mine"


def environment(run, **changes):
    run.write_json("environment.json", run.read_json("environment.json") | changes)


@pytest.fixture
def local(run):
    """A run on a model and rows that lie here."""
    environment(run, model=LOCAL)
    run.write_json("data.json", run.read_json("data.json") | {"source": "/home/someone/rows.jsonl"})
    return run


def table(card):
    return [line for line in card.splitlines() if line.startswith("| ")][2:]


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M"),
        (LOCAL, None),
        ("package:heldout", None),
        ("../models/mine", None),
        ("gpt2", None),
    ],
)
def test_the_hub_reads_the_metadata_that_are_meant(run, model, base):
    environment(run, model=model)
    read = ModelCard(model_card(run)).data.to_dict()
    assert read == card_metadata(run)
    assert read.get("base_model") == base
    assert read["library_name"] == "transformers"
    assert read["pipeline_tag"] == "text-generation"


def test_an_adapter_says_of_what(run):
    run.best.mkdir()
    (run.best / "adapter_config.json").write_text("{}")
    read = ModelCard(model_card(run)).data.to_dict()
    assert (read["library_name"], read["base_model_relation"]) == ("peft", "adapter")
    assert "AutoPeftModelForCausalLM" in model_card(run)


def test_a_base_that_lies_here_can_be_named(local):
    read = ModelCard(model_card(local, base="org/base")).data.to_dict()
    assert read == card_metadata(local, base="org/base")
    assert read["base_model"] == "org/base"


def test_a_model_from_random_weights_has_no_base(run):
    environment(run, from_scratch="/home/someone/config.json")
    card = model_card(run)
    assert "base_model" not in ModelCard(card).data.to_dict()
    assert "trained from random weights" in card
    assert "someone" not in card


def test_it_says_first_what_it_is_and_how_it_was_judged(run):
    card = ModelCard(model_card(run)).text
    order = [
        "# factbook-smollm2",
        "fine-tuned by heldout on 412 prompts with answers",
        "240 more, sealed until the end, judged it",
        made_up_run.verdict().headline,
        "Held-out loss 3.",
        "## Use",
        "## Limits",
        "## Figures",
        "## How it was trained",
    ]
    places = [card.index(words) for words in order]
    assert places == sorted(places)
    assert "Fit, **good**: Loss on the sealed test" in card
    assert "**Not measured**, so nothing is claimed: quality, confidence." in card


def test_the_table_is_short(run):
    measured = run.read_json("measurements.json")
    loss = next(e for e in measured["measurements"] if e["name"] == "test_nll_best")
    names = ("generalization_gap", "recital", "extraction", "membership_auc_loss", "exposure")
    names += ("ece", "forgetting", "seq_rep_4", "ended", "fragment_coverage", "metric", "other")
    have = {entry["name"] for entry in measured["measurements"]}
    measured["measurements"] += [
        {**loss, "name": f"{name}_best", "contrasts": {}}
        for name in names
        if f"{name}_best" not in have
    ]
    run.write_json("measurements.json", measured)
    rows = table(model_card(run))
    assert len(rows) == MOST_FIGURES
    assert rows[0].startswith("| Loss on unseen text | 3.")
    assert not any("_" in row for row in rows)


def test_no_path_and_no_name_of_the_users_is_in_it(local):
    recipe = load_recipe(
        str(local.path("recipe.toml")),
        [
            "data.validation=/home/someone/validation.jsonl",
            "augment.replay.data=/home/someone/old.jsonl",
        ],
    )
    local.write_text("recipe.toml", recipe.to_toml())
    verdict = local.read_json("verdict.json")
    verdict["verdicts"]["leakage"]["sentence"] = (
        'Row "my secret" of /home/someone/a.jsonl is twice.'
    )
    local.write_json("verdict.json", verdict)
    card = model_card(local)
    assert not re.search(r"(?<![\w:/.])/\w", card.replace("</", ""))
    assert not re.search("someone|secret|jsonl", card)
    assert "[augment.replay]" in card


def test_a_run_that_was_stopped_says_so(interrupted):
    card = model_card(interrupted)
    assert "**The training did not come to its end** (interrupted)" in card
    assert "## Figures" not in card


def test_a_cross_validated_run_names_its_judge(cross_validated):
    card = model_card(cross_validated)
    assert "24 texts; cross-validation judged it." in card
    assert "5 folds" in card
    assert "| Loss on unseen text, out of fold | " in card
