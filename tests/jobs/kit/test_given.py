"""Models, rows and regularizers given as objects, where names and paths would do too."""

import json
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

import heldout
from heldout.core.own_classes import as_parameters
from heldout.jobs.kit.chosen_recipe import with_objects
from heldout.jobs.kit.given_data import given_data
from heldout.jobs.kit.given_model import given_model
from heldout.jobs.kit.parts import read_parts
from heldout.lm.fingerprint import fingerprint
from heldout.lm.load import load_model

ROWS = [{"prompt": f"How many are {n}?", "completion": f"They are {n}.", "id": n} for n in range(9)]


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        tuple(ROWS),
        (row for row in ROWS),
        pd.DataFrame(ROWS),
        datasets.Dataset.from_list(ROWS),
        datasets.Dataset.from_list(ROWS).to_iterable_dataset(),
        [{**row, "id": np.int64(row["id"])} for row in ROWS],
    ],
    ids=lambda rows: type(rows).__name__,
)
def test_all_kinds_of_rows_are_the_same_rows(rows):
    with given_data(rows) as given:
        read = heldout.read_rows(given.path, group="id")
    assert [row.messages[1]["content"] for row in read.rows] == [r["completion"] for r in ROWS]
    assert [row.group for row in read.rows] == [str(n) for n in range(9)]
    assert given.renamed(read.rows[2].where) == "data row 3"


def test_missing_values_of_a_table_are_null():
    table = pd.DataFrame({"text": ["One row.", None], "when": pd.to_datetime(["2026-01-02", None])})
    with given_data(table) as given, Path(given.path).open() as file:
        assert [json.loads(line) for line in file] == [
            {"text": "One row.", "when": "2026-01-02T00:00:00"},
            {"text": None, "when": None},
        ]


def test_parts_by_name_are_a_split(english_text):
    texts = [{"text": text} for text in english_text.split("\n\n") if len(text) > 80]
    parts = {"train": texts[:40], "validation": texts[40:50], "test": texts[50:60]}
    split = datasets.DatasetDict({n: datasets.Dataset.from_list(r) for n, r in parts.items()})
    for data in (parts, split):
        with given_data(data) as given:
            read = given.renamed(read_parts(given.path, heldout.Recipe()))
        assert (len(read.validation), len(read.test)) == (10, 10)
        assert read.about["source"] == "data"
        assert "/tmp" not in json.dumps(read.about)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (3, r"data must be a path, a list of dicts, a pandas.DataFrame.* got int\."),
        ([1], r"data row 1 must be a dict of columns, got int"),
        ([{"text": b"x"}], "data row 1: a bytes is no text"),
        ({"train": [{"text": "x"}, {"text": 3j}]}, r"data\['train'\] row 2: a complex"),
        ({"../x": ROWS}, "parts must have names such as 'train'"),
        ([], "data is empty: there are no rows in it"),
        ([{"text": "a"}, {"text": ""}], 'data: 1 row has an empty "text", at line 2'),
        ({"train": [{"text": ""}], "test": [{"text": "b"}]}, 'data.* an empty "text", at .*line 1'),
    ],
)
def test_a_bad_row_is_named_as_the_caller_knows_it(rows, words):
    with pytest.raises(heldout.UserError, match=words) as refused, given_data(rows) as given:
        heldout.read_rows(given.path)
    assert "heldout-data" not in str(refused.value)


def test_a_check_of_rows_says_where_without_a_scratch_folder(tmp_path):
    twice = [{"text": "The same sentence stands in two rows of this data."}] * 2
    found = heldout.check(twice, out=tmp_path / "checked")
    assert [pair.second.where for pair in found.duplicates] == ["data row 2"]
    for name in ("check.json", "report.html"):
        assert "heldout-data" not in (tmp_path / "checked" / name).read_text()


def test_a_model_is_saved_as_it_is_and_goes(tiny_model_dir, tiny_tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight.mul_(2.0)
    with given_model(model, tiny_tokenizer) as given:
        loaded = load_model(given.name, device="cpu").model
        assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
        first, place = fingerprint(given.name), given.name
    with given_model(model, tiny_tokenizer, at=place) as again:
        assert fingerprint(again.name) == first
    with pytest.raises(heldout.UserError, match="was given as an object, which is gone"):
        load_model(place, device="cpu")


def test_an_adapter_brings_its_base(tiny_model_dir, tiny_tokenizer):
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    peft = get_peft_model(model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    ids = tiny_tokenizer("A base and its adapter.", return_tensors="pt").input_ids
    with given_model(peft, tiny_tokenizer) as given:
        merged = load_model(given.name, device="cpu").model
        before = fingerprint(given.name)
        assert torch.allclose(merged(ids).logits, peft.eval()(ids).logits, atol=1e-5)
        place = given.name
    with torch.no_grad():
        peft.get_base_model().model.embed_tokens.weight.mul_(1.5)
    with given_model(peft, tiny_tokenizer, at=place) as changed:
        assert fingerprint(changed.name) != before
    assert any("lora_" in name for name, _ in peft.named_parameters())  # still as it was given


@pytest.mark.parametrize(
    ("model", "tokenizer", "words"),
    [
        ("folder", "x", "tokenizer goes with a model given as an object"),
        (3, None, "model must be a folder, a Hub id, or a model of transformers or peft, got int"),
    ],
)
def test_what_is_no_model_is_refused(model, tokenizer, words):
    with pytest.raises(heldout.UserError, match=words), given_model(model, tokenizer):
        pass


def test_a_model_needs_its_tokenizer(tiny_model_dir):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    with pytest.raises(heldout.UserError, match="tokenizer must be"), given_model(model):
        pass


@dataclass(frozen=True)
class Halving(heldout.Regularizer):
    """Halves nothing: it counts."""

    rate: float = 0.5
    names: tuple[str, ...] = ()


def test_objects_stand_in_the_recipe_by_name():
    given = [heldout.SAM(radius=0.1), heldout.L2SP(), Halving(names=("a",))]
    recipe = with_objects(heldout.load_recipe("lora"), given, [heldout.WordDropout()])
    own = f"{__name__}:Halving"
    assert recipe.regularizers["sam"] == {"radius": 0.1}
    assert recipe.regularizers[own] == {"names": ["a"]}
    assert "word_dropout" in recipe.augment
    assert recipe.train.side_by_side == 1
    assert recipe.own_code == []  # the class is here
    foreign = heldout.Recipe(regularizers={"no_such_module:Halving": {}})
    assert foreign.own_code == ["regularizers.no_such_module:Halving"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["sam"], "regularizers must hold objects of classes on Regularizer"),
        ([heldout.SAM(), heldout.SAM()], "regularizers holds two of sam"),
        ([Halving(names=(torch.nn.Linear(1, 1),))], "which a run folder cannot"),
    ],
)
def test_an_object_that_a_run_cannot_keep_is_refused(given, words):
    with pytest.raises(heldout.UserError, match=words):
        as_parameters("regularizer", heldout.Regularizer, given, "regularizers")
