import itertools
import json
import lzma
import math
import sys
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from heldout.cli import main as cli
from heldout.core.errors import Interrupted, UserError
from heldout.core.progress import Progress
from heldout.core.row import Row
from heldout.core.segments import items
from heldout.jobs.compressing.compress import _shuffled, compress
from heldout.jobs.compressing.compressors import XZ_PRESET, ZSTD_LEVEL, general_compressors
from heldout.jobs.compressing.prequential import block_ends
from heldout.jobs.compressing.two_part import adaptive_bits
from heldout.jobs.planning.capacity_texts import random_tokenizer
from heldout.lm.load import from_scratch

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WORDS = ["a", *(f"a{index}" for index in range(1, 8))]
CHANCES = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625, 0, 0, 0])
SETTINGS = (
    "train.learning_rate=2e-2",
    "train.max_epochs=2",
    "train.batch_size=4",
    "train.micro_batch_size=4",
    "train.warmup_steps=2",
    "eval.per_epoch=1",
)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A configuration of 2,000 parameters and a tokenizer of one token a word."""
    folder = tmp_path_factory.mktemp("family")
    tokenizer = random_tokenizer(len(WORDS) + 1)
    config = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    (folder / "config.json").write_text(json.dumps(config))
    from_scratch(config, tokenizer, seed=0).model.save_pretrained(folder / "words")
    tokenizer.save_pretrained(folder / "words")
    return {"model": str(folder / "words"), "from_scratch": str(folder / "config.json")}


@pytest.mark.parametrize(
    "text",
    [
        "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。寒来暑往，秋收冬藏。",
        "いろはにほへとちりぬるを、わかよたれそつねならむ。",
        "เราไปกินข้าวที่ตลาดแล้วกลับบ้านตอนเย็น",
        "one two three four five six seven eight nine ten eleven",
        "하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉 열 열하나",
    ],
)
def test_few_words_of_a_shuffled_text_stay_beside_their_neighbor(text):
    row = Row(3, ({"role": "text", "content": text},), "g")
    mixed = _shuffled(row, 0).text
    assert sorted(mixed) == sorted(text)
    before, after = items(text)[1::2], items(mixed)[1::2]
    kept = set(itertools.pairwise(before)) & set(itertools.pairwise(after))
    assert len(kept) <= 0.2 * len(before)


def write(path, texts):
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return str(path)


def measured(result):
    return {each.name: each for each in result.measurements}


@pytest.fixture(scope="module")
def independent(family, tmp_path_factory):
    """Words drawn one by one: their best code is known, and their order says nothing."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, size=48, p=CHANCES)) for _ in range(64)]
    folder = tmp_path_factory.mktemp("independent")
    data = write(folder / "data.jsonl", texts)
    result = compress(data, **family, settings=SETTINGS, blocks=3, out=folder / "out")
    return texts, result


def ideal_bits(texts):
    chance = dict(zip(WORDS, CHANCES, strict=True))
    return -sum(math.log2(chance[word]) for text in texts for word in text.split())


def test_a_source_of_known_entropy_is_coded_above_it_and_below_uniform(independent):
    texts, result = independent
    bits = sum(block.bits for block in result.blocks)
    num_words = sum(len(text.split()) for text in texts)
    assert result.num_tokens == num_words
    assert ideal_bits(texts) < bits < num_words * math.log2(9)
    last, per_word = result.blocks[-1], ideal_bits(texts) / num_words
    assert last.bits / last.num_tokens < 1.1 * per_word
    assert result.blocks[0].bits == pytest.approx(result.blocks[0].num_tokens * math.log2(9))
    assert measured(result)["prequential"].value == pytest.approx(bits / result.num_bytes)


def test_order_that_says_nothing_is_worth_nothing(independent):
    _, result = independent
    bounds = measured(result)["word_order"].interval
    assert bounds.low < 0.01
    assert bounds.high > -0.01
    assert measured(result)["structure"].interval.low > 0


def test_blocks_double_and_hold_every_document(independent):
    texts, result = independent
    assert sum(block.num_documents for block in result.blocks) == len(texts)
    assert [block.num_documents for block in result.blocks] == [16, 16, 32]
    assert result.num_bytes == sum(len(text) for text in texts)


def test_the_code_names_its_checkpoint(independent):
    _, result = independent
    for block in result.blocks[1:]:
        assert block.name_bits == pytest.approx(math.log2(5)), (
            "the start, two steps, their averages"
        )
        assert 0 <= block.checkpoint <= 2
        assert block.epochs == block.checkpoint
        assert block.bits <= block.start_bits + block.name_bits + 1e-6


def test_folder_holds_the_page_and_the_numbers(independent):
    _, result = independent
    text = Path(result.report).read_text(encoding="utf-8")
    assert len(text.encode()) <= 400_000
    assert 'id="learning"' in text
    assert result.headline in text


@pytest.mark.slow
def test_order_that_says_everything_is_found(family, tmp_path):
    rng = np.random.default_rng(1)
    cycle = WORDS[1:7]
    texts = []
    for _ in range(48):
        start = int(rng.integers(6))
        texts.append(" ".join(cycle[(start + step) % 6] for step in range(24)))
    data = write(tmp_path / "cycles.jsonl", texts)
    result = compress(data, **family, settings=(*SETTINGS, "train.max_epochs=4"), blocks=2)
    found = measured(result)
    assert found["word_order"].interval.low > 0.2
    assert found["structure"].contrasts["shuffled"].interval.low > 0.1
    assert found["prequential"].contrasts["shuffled"].interval.high < 0


def test_uniform_random_words_gain_nothing(family, tmp_path):
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.choice(WORDS, size=24)) for _ in range(48)]
    data = write(tmp_path / "uniform.jsonl", texts)
    settings = (*SETTINGS, "train.max_epochs=8", "regularizers.early_stopping=false")
    result = compress(data, **family, settings=settings, blocks=3)
    # The code is uniform over 9 tokens, the words over 8: that much can be learned, no more.
    assert sum(block.bits for block in result.blocks) > result.num_tokens * math.log2(8)
    assert measured(result)["rote"].interval.low > 0


class _StopsAfter(Progress):
    def __init__(self, steps):
        self.left = steps

    def advance(self, num=1, text=""):
        self.left -= num
        if self.left < 0:
            raise Interrupted


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["restart", "continue"])
def test_an_interrupted_run_goes_on_to_the_same_numbers(strategy, family, tmp_path):
    rng = np.random.default_rng(3)
    data = write(tmp_path / "d.jsonl", [" ".join(rng.choice(WORDS, 12)) for _ in range(12)])
    call = {
        **family,
        "settings": SETTINGS,
        "strategy": strategy,
        "blocks": 3,
    }
    whole = compress(data, **call, out=tmp_path / "whole").to_json()
    with pytest.raises(Interrupted):
        compress(data, **call, out=tmp_path / "parts", progress=_StopsAfter(4))
    resumed = compress(data, **call, out=tmp_path / "parts").to_json()
    assert whole.pop("report") != resumed.pop("report")
    assert whole == resumed
    with pytest.raises(UserError, match="holds code lengths of other data or settings"):
        compress(data, **{**call, "blocks": 2}, out=tmp_path / "parts")


def test_general_compressors_are_the_known_ones_at_their_strongest(english_text):
    texts = [text for text in english_text.split("\n\n")[:300] if text]
    ends = [10, 100, len(texts)]
    found = general_compressors(texts, ends)
    by_name = {each.name: each for each in found}
    joined = "\0".join(texts).encode()
    assert by_name["zlib"].bits == 8 * len(zlib.compress(joined, 9))
    assert by_name["zlib"].document_bits_D.sum() == by_name["zlib"].bits
    assert by_name["xz"].bits == 8 * len(lzma.compress(joined, preset=XZ_PRESET))
    assert by_name["zstd"].bits == 8 * len(zstd.compress(joined, level=ZSTD_LEVEL))
    assert all(
        len(zstd.compress(joined, level=level)) >= by_name["zstd"].bits / 8 for level in (3, 19)
    )
    first = "\0".join(texts[:10]).encode()
    assert by_name["zlib"].block_bits[0] == 8 * len(zlib.compress(first, 9))


def test_blocks_double_in_tokens_and_keep_groups_whole():
    ones = np.ones(64)
    names = np.array([f"g{index}" for index in range(64)])
    assert block_ends(ones, names, 7) == [1, 2, 4, 8, 16, 32, 64]
    assert block_ends(ones, names, 3) == [16, 32, 64]
    groups = np.repeat(["a", "b", "c", "d"], 16)
    assert block_ends(ones, groups, 7) == [16, 32, 64]
    with pytest.raises(UserError, match="two groups"):
        block_ends(ones, np.repeat("a", 64), 7)


def test_adaptive_code_is_laplaces_rule_step_by_step():
    symbols = np.random.default_rng(0).integers(0, 3, size=50)
    counts, bits = np.ones(5), 0.0
    for symbol in symbols:
        bits -= math.log2(counts[symbol] / counts.sum())
        counts[symbol] += 1
    assert adaptive_bits(symbols, 5) == pytest.approx(bits, rel=1e-12)


def test_two_part_codes_say_what_the_weights_cost(independent):
    _, result = independent
    asymptotic, *grids = result.two_part
    num = result.trained_parameters
    assert asymptotic.parameter_bits == pytest.approx(num / 2 * math.log2(result.num_tokens))
    assert [each.parameter_bits for each in grids] == sorted(each.parameter_bits for each in grids)
    assert grids[-1].data_bits == pytest.approx(asymptotic.data_bits, rel=0.01)
    for each in grids:
        assert each.bits > ideal_bits(independent[0])


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["heldout", "plan", "compress", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_json_on_the_command_line(tiny_model_dir, tmp_path, monkeypatch, capsys):
    texts = [f"Row {index} <b>tells</b> of {index * 7} things." for index in range(12)]
    data = write(tmp_path / "<i>rows.jsonl", texts)
    words = [data, "--model", tiny_model_dir, "--blocks", "2", "--set", "train.max_epochs=1"]
    out = tmp_path / "out"
    code, shown, _ = run(monkeypatch, capsys, *words, "--out", out, "--json")
    assert code == 0
    entry = json.loads(shown)
    schema = resources.files("heldout.core") / "schemas" / "compress.json"
    Draft202012Validator(json.loads(schema.read_text(encoding="utf-8"))).validate(entry)
    assert entry == json.loads((out / "compress.json").read_text(encoding="utf-8"))
    assert entry["start_code"] == "base"
    assert entry["trained_parameters"] > 20_000, "all of a small model by default"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<i>rows" not in page
    code, shown, _ = run(monkeypatch, capsys, *words, "--out", out)
    assert code == 0
    assert "bits per byte" in shown
    assert "two-part" in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--strategy", "again"], "--strategy must be restart or continue, got 'again'"),
        (["--blocks", "1"], "--blocks must be 2 or more"),
        (["--set", "augment.token_noise=true"], "leave the recipe's [augment] out"),
        (["--set", "regularizers.wise_ft=true"], "--set regularizers.wise_ft=false"),
        (["--from-scratch", "config.json", "--recipe", "lora"], "--recipe full"),
        (["--recipe", "ful"], "did you mean 'full'"),
    ],
)
def test_bad_input_is_one_line(words, expected, tiny_model_dir, tmp_path, monkeypatch, capsys):
    data = write(tmp_path / "rows.jsonl", ["one text", "another text"])
    out = tmp_path / "out"
    code, shown, err = run(
        monkeypatch, capsys, data, "--model", tiny_model_dir, "--out", out, *words
    )
    assert (code, shown) == (2, "")
    assert expected in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_one_document_cannot_be_coded_after_another(tiny_model_dir, tmp_path, monkeypatch, capsys):
    data = write(tmp_path / "one.jsonl", ["just one text"])
    code, _, err = run(monkeypatch, capsys, data, "--model", tiny_model_dir)
    assert code == 2
    assert "two groups of documents or more" in err.splitlines()[-1]
