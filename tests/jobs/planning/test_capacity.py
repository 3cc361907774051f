import json
import math
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from heldout.cli import main as cli
from heldout.core.errors import Interrupted
from heldout.core.progress import Progress
from heldout.core.results.capacity import plateaus
from heldout.jobs.planning.capacity import capacity
from heldout.jobs.planning.capacity_texts import random_rows, random_tokenizer
from heldout.jobs.planning.memorized_bits import measure_memorized, memorized_bits
from heldout.lm.tokenize import tokenize_row

CONFIG = {
    "model_type": "llama",
    "vocab_size": 16,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
CALL = {"length": 16, "learning_rate": 3e-2}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "tiny.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture(scope="module")
def filled(config, tmp_path_factory):
    """A model of 3,120 parameters on little and on far too much random text."""
    folder = tmp_path_factory.mktemp("capacity")
    return capacity([config], loads=[0.25, 6.0], steps=150, out=folder, **CALL), folder


def test_little_random_text_is_memorized_whole_and_too_much_is_not(filled):
    result, _ = filled
    little, much = result.filled
    assert little.load == pytest.approx(0.25, rel=0.1)
    assert 0.8 * little.load < little.memorized.value <= little.load
    assert much.load == pytest.approx(6, rel=0.01)
    assert 0 < much.memorized.value < 0.5 * much.load


def test_random_text_that_was_not_seen_is_not_memorized(filled):
    result, _ = filled
    for each in result.filled:
        gap = each.memorized.contrasts["heldout"]
        heldout = each.memorized.value - gap.difference
        assert heldout < 0.01 * each.load
        assert gap.interval.low > 0


def test_bits_of_random_text_are_those_of_the_uniform_code(filled):
    result, _ = filled
    for each in result.filled:
        assert each.num_tokens == each.num_sequences * CALL["length"]
        assert each.data_bits == pytest.approx(each.num_tokens * math.log2(15))


def test_rows_are_random_words_that_are_all_scored():
    tokenizer = random_tokenizer(16)
    rows = random_rows(200, 16, 16, np.random.default_rng(0))
    ids = []
    for row in rows:
        tokenized = tokenize_row(row, tokenizer, 17)
        (window,) = tokenized.windows
        assert window.input_ids[0] == tokenizer.bos_token_id
        assert tokenized.num_tokens == 16
        ids += window.input_ids[1:]
    counts = np.bincount(ids, minlength=16)
    assert counts[tokenizer.bos_token_id] == 0
    expected = len(ids) / 15
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 36.1  # chi-square, 14, p = .001


def test_memorized_bits_are_clipped_row_by_row():
    reference, model = np.array([10.0, 10.0]), np.array([4.0, 13.0])
    assert memorized_bits(reference, model, clipped=False).tolist() == [6, -3]
    assert memorized_bits(reference, model, clipped=True).tolist() == [6, 0]


def test_the_control_is_held_out_text_of_as_many_bits():
    rng = np.random.default_rng(0)
    reference, names = np.full(60, 100.0), [f"r{index}" for index in range(60)]
    shared = {"parameters": 1000, "clipped": False}
    seen, unseen = reference - 40 + rng.normal(size=60), reference - 10 + rng.normal(size=60)
    found = measure_memorized(seen, reference, names, unseen, reference, names, **shared)
    assert found.value == pytest.approx(60 * 40 / 1000, rel=0.02)
    gap = found.contrasts["heldout"]
    assert gap.interval.low < 60 * 30 / 1000 < gap.interval.high
    half = measure_memorized(
        seen, reference, names, unseen[:30], reference[:30], names[:30], **shared
    )
    assert half.contrasts["heldout"].difference == pytest.approx(gap.difference, rel=0.02)


def test_plateau_is_the_most_and_says_whether_it_is_one(filled):
    little, much = filled[0].filled

    def at(load, value):
        interval = replace(little.memorized.interval, low=value, high=value)
        memorized = replace(little.memorized, value=value, interval=interval)
        return replace(little, data_bits=load * little.parameters, memorized=memorized)

    (rising,) = plateaus([at(1, 0.98), at(2, 1.9)])
    assert (rising.load, rising.is_reached) == (2, False)
    assert "no plateau yet" in rising.sentence
    (level,) = plateaus([at(6, 2.2), at(4, 2.5), at(1, 0.98)])
    assert (level.load, level.bits_per_parameter, level.is_reached) == (4, 2.5, True)
    assert "at least 2.50" in level.sentence
    assert [each.parameters for each in filled[0].plateaus] == [much.parameters]


class _StopsAfter(Progress):
    def __init__(self, steps):
        self.left = steps

    def advance(self, num=1, text=""):
        self.left -= num
        if self.left < 0:
            raise Interrupted


def test_finished_models_are_kept(config, tmp_path):
    call = {**CALL, "loads": [0.5, 1.0], "steps": 20}
    whole = capacity([config], **call).to_json()
    with pytest.raises(Interrupted):
        capacity([config], **call, out=tmp_path, progress=_StopsAfter(30))
    assert len((tmp_path / "filled.jsonl").read_text().splitlines()) == 1
    resumed = capacity([config], **call, out=tmp_path)
    assert len((tmp_path / "filled.jsonl").read_text().splitlines()) == 2
    for one, other in zip(whole["filled"], resumed.to_json()["filled"], strict=True):
        one.pop("seconds")
        other.pop("seconds")
        assert one == other


@pytest.mark.slow
def test_real_text_beyond_what_a_reference_predicts(tiny_model_dir, english_text, tmp_path):
    rows = [text for text in english_text.split("\n\n") if 40 < len(text) < 90][:125]
    data = tmp_path / "prose.jsonl"
    data.write_text("\n".join(json.dumps({"text": text}) for text in rows), encoding="utf-8")
    config = tmp_path / "words.json"
    config.write_text(json.dumps({**CONFIG, "vocab_size": 400, "max_position_embeddings": 128}))
    result = capacity(
        [config],
        loads=[0.1, 50],
        steps=10,
        length=16,
        learning_rate=1e-2,
        data=str(data),
        reference=str(tiny_model_dir),
    )
    real = [each for each in result.filled if each.text == "prose"]
    (each,) = real  # there is not enough text for the larger load
    assert any("too few rows for 50 bits" in note for note in result.notes)
    assert each.memorized.value > 0
    gap = each.memorized.contrasts["heldout"]
    assert gap.difference < each.memorized.value  # the reference is random: held-out gains too
    assert each.memorized.resampled_unit == "group"


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["heldout", "plan", "capacity", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_command_line_and_page(config, filled, monkeypatch, capsys):
    _, folder = filled
    words = ["--config", config, "--load", ".25", "--load", "6", "--steps", "150", "--length", "16"]
    words += ["--learning-rate", ".03", "--out", folder]
    code, out, _ = run(monkeypatch, capsys, *words, "--json")
    assert code == 0
    entry = json.loads(out)
    schema = resources.files("heldout.core") / "schemas" / "capacity.json"
    Draft202012Validator(json.loads(schema.read_text(encoding="utf-8"))).validate(entry)
    assert entry == json.loads((folder / "capacity.json").read_text(encoding="utf-8"))
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) <= 400_000
    assert 'id="filling"' in page
    assert "lower bound" in page
    code, out, _ = run(monkeypatch, capsys, *words)
    assert code == 0
    assert "holds at least" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "capacity needs --config"),
        (["--config", "nowhere.json"], "nowhere.json is missing"),
        (["--config", "CONFIG", "--load", "0"], "--load must be above 0"),
        (["--config", "CONFIG", "--steps", "1"], "--steps must be 10 or more"),
        (["--config", "CONFIG", "--learning-rate", "2"], "--learning-rate must be above 0"),
        (["--config", "CONFIG", "--data", "d.jsonl"], "--data and --reference go together"),
        (["--config", "NO_VOCABULARY"], "vocab_size must be a whole number"),
    ],
)
def test_bad_input_is_one_line(words, expected, config, tmp_path, monkeypatch, capsys):
    without = tmp_path / "without.json"
    without.write_text(json.dumps({"model_type": "llama"}))
    paths = {"CONFIG": config, "NO_VOCABULARY": without}
    out = tmp_path / "out"
    code, shown, err = run(
        monkeypatch, capsys, *(paths.get(word, word) for word in words), "--out", out
    )
    assert (code, shown) == (2, "")
    assert expected in err
    assert err.count("\n") == 1
    assert not out.exists()
