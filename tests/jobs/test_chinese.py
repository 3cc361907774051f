"""Whole runs on Chinese rows, with a tokenizer of Chinese and with one that cuts characters up."""

import json

import pytest

from chinese_rows import pairs
from heldout.core.graphemes import is_boundary
from heldout.core.measurement import Measurement
from heldout.jobs.checking.check import check
from heldout.jobs.compressing.compress import compress
from heldout.jobs.diagnosing.diagnose import diagnose
from heldout.jobs.fitting.fit import fit

pytestmark = pytest.mark.slow

SETTINGS = (
    "data.max_length=128",
    "train.learning_rate=0.01",
    "train.max_epochs=4",
    "eval.num_samples=2",
)


@pytest.fixture(scope="module")
def chinese_tokenizer():
    """Byte-level BPE trained on Chinese: a token is a character or more."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((q + a for q, a in pairs(600, seed=9)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="module", params=["of Chinese", "of bytes"])
def model(request, random_llama, tiny_tokenizer):
    """A random Llama of width 32 with a tokenizer that knows the script, and one that does not."""
    knows = request.param == "of Chinese"
    tokenizer = request.getfixturevalue("chinese_tokenizer") if knows else tiny_tokenizer
    return random_llama(tokenizer, "chinese_llama"), knows


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """160 answered questions, and 40 others."""
    folder = tmp_path_factory.mktemp("rows")
    rows = [{"prompt": q, "completion": a} for q, a in pairs(200)]
    for name, part in (("train", rows[:160]), ("unseen", rows[160:])):
        lines = [json.dumps(row, ensure_ascii=False) for row in part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(model, files, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    data = str(files / "train.jsonl")
    return fit(str(model[0]), data, out=out, recipe="full", settings=SETTINGS).run


def whole(text, rows):
    """Whether the text stands in a row and ends between two of its characters."""
    row = next((row for row in rows if text in row), "")
    return bool(row) and is_boundary(row, row.index(text) + len(text))


def test_fit(run, model, files):
    _, knows = model
    rows = [row.text for part in ("train", "validation") for row in run.read_rows(part)]
    size = run.read_json("token_size.json")
    assert (size["characters_per_token"] >= 1) == knows
    warnings = [each for each in run.read_json("checks.json") if each["name"] == "tokenizer"]
    assert bool(warnings) != knows
    samples = run.read_json("samples.json")
    assert samples
    for sample in samples:
        assert whole(sample["prompt"], rows)
        assert "\ufffd" not in sample["prompt"] + sample["reference"]
    page = run.path("report.html").read_text(encoding="utf-8")
    assert ' lang="zh-Hans"' in page
    assert "\ufffd" not in page.split("<script")[0] or not knows


def test_diagnose(run, model, files, tmp_path):
    found = diagnose(run.folder, out=tmp_path / "page")
    mask = found.facts.check("masking_broken")
    assert mask.status == "absent"
    assert "this run's own labels" in mask.evidence
    assert "masking_broken" not in {cause.name for cause in found.verdict.causes}
    _folder, knows = model
    assert any("hardly knows the script" in text for text in found.warnings) != knows
    coverage = next(each for each in found.measurements if each.name == "fragment_coverage_best")
    said = coverage.unit if isinstance(coverage, Measurement) else coverage.reason
    assert ("matches of 12 or more" in said or "by 8 tokens or more" in said) == knows
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert ' lang="zh-Hans"' in page


def test_diagnose_of_the_model_alone(run, model, files):
    """Without the run's labels the losses look the same for masked and unmasked training."""
    found = diagnose(
        run.path("best"),
        train=files / "train.jsonl",
        heldout=files / "unseen.jsonl",
        base=str(model[0]),
        generate=False,
    )
    assert "masking_broken" not in {cause.name for cause in found.verdict.causes}


def test_check(model, files, tmp_path):
    folder, knows = model
    found = check(
        files / "train.jsonl",
        heldout=[files / "unseen.jsonl"],
        model=str(folder),
        out=tmp_path / "page",
    )
    assert any("hardly knows the script" in text for text in found.warnings) != knows
    assert {"characters", "tokens"} <= {each.unit for each in found.lengths}
    assert "words" not in {each.unit for each in found.lengths}


def test_compress(model, files):
    found = compress(
        str(files / "train.jsonl"), model=str(model[0]), blocks=3, recipe="full", settings=SETTINGS
    )
    assert found.headline
    assert found.num_bytes > 3 * 160 * 10
    assert any(each.name.startswith("bits_per_byte") for each in found.measurements) or found.blocks
