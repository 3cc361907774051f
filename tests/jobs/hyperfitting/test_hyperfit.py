"""Overfitting on purpose from end to end, on the embedded model and real text."""

import json
from importlib import resources
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from heldout.cli import main as cli
from heldout.core.errors import UserError
from heldout.core.measurement import Measurement
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.run import Run
from heldout.jobs.hyperfitting.hyperfit import dry_run_hyperfit, hyperfit, resume_hyperfit
from heldout.jobs.hyperfitting.measure import TextFigures, block_edges, new_types, repeats
from heldout.jobs.hyperfitting.train import Checkpoint, WindowSample, _keep, chosen_checkpoint
from heldout.jobs.kit.parts import load_parts
from heldout.jobs.report import write_report
from heldout.lm.load import load_tokenizer
from heldout.lm.special_tokens import end_of_turn_ids
from heldout.probes.repetition import repeated_share, type_token_ratio

MODEL = "package:heldout"
NEW_TOKENS = 16


@pytest.fixture(scope="module")
def files(english_text, tmp_path_factory):
    """Prose in three parts, of which the test looks like HTML, and a long one."""
    folder = tmp_path_factory.mktemp("texts")
    pieces = [english_text[at : at + 900] for at in range(0, 45_000, 900)]
    pieces[32:] = ["<b>x</b> " + piece for piece in pieces[32:]]
    for name, part in (
        ("train", pieces[:20]),
        ("validation", pieces[20:32]),
        ("test", pieces[32:]),
        ("long", [english_text[at : at + 9_000] for at in range(45_000, 345_000, 9_000)]),
    ):
        lines = (json.dumps({"text": text}) for text in part)
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def settings(files):
    return (
        "data.max_length=24",
        f"data.validation={files / 'validation.jsonl'}",
        f"data.test={files / 'test.jsonl'}",
        "hyperfit.num_samples=16",
        "hyperfit.target_loss=0.7",
        "hyperfit.context_tokens=8",
        f"hyperfit.new_tokens={NEW_TOKENS}",
        "hyperfit.num_contexts=8",
        "hyperfit.num_validation_contexts=8",
        "hyperfit.keep_last=2",
        "train.learning_rate=2e-3",
        "train.max_epochs=12",
        "train.checkpoint_minutes=0",
        "eval.num_samples=8",
    )


@pytest.fixture(scope="module")
def result(files, settings, tmp_path_factory):
    """One complete run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return hyperfit(MODEL, str(files / "train.jsonl"), out=out, settings=settings)


def validate(entry):
    path = resources.files("heldout.core") / "schemas" / "hyperfit.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(entry)


def test_training_stops_on_the_training_loss_and_not_on_validation(result):
    history = result.run.history()
    reached = [entry["train_nll"] <= 0.7 for entry in history]
    assert reached == [False] * (len(history) - 1) + [True]
    assert history[-1]["epoch"] < 12
    losses = [entry["validation_nll"] for entry in history]
    assert len(losses) - 1 - losses.index(min(losses)) >= 2, "two evaluations after the lowest"


def test_both_checkpoints_are_what_the_history_says(result):
    kept, history = result.run.read_json("kept.json"), result.run.history()
    assert kept["step"] in [entry["step"] for entry in history[-2:]]
    lowest = min(history, key=lambda entry: entry["validation_nll"])
    sample = result.run.read_json("sample.json")["trained"]
    for folder, entry in (("best", kept), ("early_stopped", lowest)):
        model = AutoModelForCausalLM.from_pretrained(result.run.path(folder), dtype=torch.float32)
        ids = torch.tensor(sample)
        with torch.no_grad():
            logits = model(input_ids=ids).logits[:, :-1]
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        assert nll.item() == pytest.approx(entry["train_nll"], abs=1e-3)


def test_json_is_as_its_schema_says(result):
    entry = json.loads(json.dumps(result.to_json(), allow_nan=False))
    validate(entry)
    validate(result.run.read_json("hyperfit.json"))
    missing = [each["name"] for each in entry["measurements"] if each["status"] != "measured"]
    assert missing == ["mauve", "base_contrastive_search"]


def test_every_text_has_the_same_length_and_no_special_token(result):
    tokenizer = AutoTokenizer.from_pretrained(result.best)
    special = {tokenizer.eos_token_id, *end_of_turn_ids(tokenizer)}
    conditions = sorted(result.run.path("texts").glob("*.json"))
    assert len(conditions) == 8
    for path in conditions:
        texts = json.loads(path.read_text())["ids"]
        assert [len(ids) for ids in texts] == [NEW_TOKENS] * 8
        assert not special & {token for ids in texts for token in ids}


def test_the_blocker_caps_what_is_copied(result):
    assert result.figures["longest_copy_hyperfitted_blocker"] <= 5
    assert (
        result.figures["longest_copy_hyperfitted_greedy"]
        > result.figures["longest_copy_hyperfitted_blocker"]
    ), "the sample is recited where nothing forbids it, or the test shows nothing"


def test_figures_follow_from_the_texts_in_the_folder(result):
    texts = result.run.read_json("texts/hyperfitted_greedy.json")["ids"]
    ttr = np.mean([len(set(ids)) / len(ids) for ids in texts])
    assert result.figures["ttr_hyperfitted_greedy"] == pytest.approx(ttr)
    base = result.run.read_json("texts/base_greedy.json")["ids"]
    gain = ttr - np.mean([len(set(ids)) / len(ids) for ids in base])
    numbers = {m.name: m for m in result.measurements if isinstance(m, Measurement)}
    contrast = numbers["ttr_hyperfitted_greedy"].contrasts["base_greedy"]
    assert contrast.difference == pytest.approx(gain)
    assert contrast.interval.low <= gain <= contrast.interval.high


def test_contexts_are_held_out_and_the_test_part_is_opened_once(result):
    assert len(result.run.test_openings) == 1
    rows = [
        json.loads(line) for line in result.run.path("data/test.jsonl").read_text().splitlines()
    ]
    texts = [row["text"] for row in rows]
    contexts = result.run.read_json("contexts.json")
    for prompt, rest in zip(contexts["prompt_texts"], contexts["reference_texts"], strict=True):
        piece = (prompt + rest).rstrip("\ufffd")  # the last token may end inside a character
        assert any(text.startswith(piece) for text in texts)


def test_the_page_shows_texts_as_text(result):
    page = result.report.read_text(encoding="utf-8")
    assert len(page.encode()) <= 400_000
    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page
    for name in ("losses", "text", "ttr", "repetition", "entropies", "new-types", "repeats"):
        assert f'id="{name}"' in page
    assert page.index(result.sentences[0][:40]) < page.index("<main")


def test_warnings_of_the_base_model(result):
    assert any("chat template" in warning for warning in result.warnings)


class Killed(Exception):
    """Stands for a kill: nothing in the job expects it."""


class KilledAt(Progress):
    def __init__(self, step):
        self.left = step

    def advance(self, num=1, text=""):
        self.left -= num
        if self.left < 0:
            raise Killed


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_numbers(result, files, settings, tmp_path):
    out = tmp_path / "killed"
    steps = result.run.history()[-1]["step"]
    with pytest.raises(Killed):
        hyperfit(
            MODEL,
            str(files / "train.jsonl"),
            out=out,
            settings=settings,
            progress=KilledAt(steps // 2),
        )
    assert not (out / "kept.json").exists()
    again = resume_hyperfit(out)
    for ours, theirs in zip(again.run.history(), result.run.history(), strict=True):
        assert {k: v for k, v in ours.items() if k != "training_loss"} == {
            k: v for k, v in theirs.items() if k != "training_loss"
        }
    mine, whole = (load_file(run.best / "model.safetensors") for run in (again.run, result.run))
    assert all(torch.equal(mine[name], whole[name]) for name in whole)
    assert again.figures == result.figures


def test_two_runs_joined_have_the_contexts_of_both(result):
    one = TextFigures.of(result.run)
    both = TextFigures.joined([one, one])
    assert len(both) == 2 * len(one)
    numbers = {m.name: m for m in both.measurements() if isinstance(m, Measurement)}
    assert numbers["ttr_human"].value == pytest.approx(result.figures["ttr_human"])


def test_data_that_is_not_small_or_too_small_is_warned_of(files, settings):
    def sample(name, *more):
        found = dry_run_hyperfit(MODEL, str(files / name), settings=[*settings, *more])
        (check,) = [check for check in found.checks if check.name == "sample"]
        return check.status, check.message

    assert sample("long.jsonl")[0] == "ok"
    status, message = sample("long.jsonl", "hyperfit.num_samples=0", "data.max_length=8")
    assert status == "warning"
    assert "known from 16 to 2,000" in message
    status, message = sample("train.jsonl", "hyperfit.num_samples=8")
    assert status == "warning"
    assert "under 16" in message


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("train.learning_rate=1e-12", "must be at least .* for weights in float32"),
        ("regularizers.weight_decay.rate=0.1", "does not use regularizers"),
        ("hyperfit.new_tokens=600", "at most 512, what this model can read"),
        ("hyperfit.new_tokens=400", r"hold \d texts of 408 tokens"),
        ("hyperfit.blocked_ngram=30", "no window of the training text has more than 24"),
        ("hyperfit.new_tokens=15", "hyperfit.new_tokens must be 16 or more, got 15"),
        ("hyperfit.target_loss=0", "hyperfit.target_loss must be above 0"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_written(
    files, settings, more, expected, tmp_path
):
    with pytest.raises(UserError, match=expected):
        hyperfit(
            MODEL, str(files / "train.jsonl"), out=tmp_path / "run", settings=[*settings, more]
        )
    assert not (tmp_path / "run").exists()


def test_a_recipe_without_a_rate_is_refused(files):
    with pytest.raises(UserError, match="hyperfit searches no learning rate"):
        dry_run_hyperfit(MODEL, str(files / "train.jsonl"), recipe="plain")


def test_the_sample_is_drawn_by_the_seed_and_its_control_apart(result):
    tokenizer = load_tokenizer(MODEL)
    rows = load_parts(result.run).train

    def drawn(seed):
        sample = WindowSample(rows, tokenizer, result.run.recipe.replace(train={"seed": seed}))
        return {tuple(sample.ids_of(place)) for place in range(len(sample))}, sample

    ids, sample = drawn(0)
    assert ids == {tuple(each) for each in result.run.read_json("sample.json")["trained"]}
    assert ids != drawn(1)[0]
    assert not ids & {tuple(each) for each in sample.left}
    assert {len(each) for each in ids} == {24}, "whole windows first"
    assert sample.num_tokens == 16 * 23
    assert sample[3]["input_ids"].tolist() == sample.ids_of(3)


def checkpoint(step, distance, repetition):
    return Checkpoint(step, step, 0.1, 5.0, 0.1, 1e-4, 0.6, repetition, distance, 2.0, False)


def test_the_last_checkpoints_are_chosen_by_their_text():
    recipe = Recipe().replace(hyperfit={"keep_last": 3, "max_repetition": 0.15})
    early_but_near = checkpoint(1, 0.0, 0.0)
    history = [early_but_near, *(checkpoint(n, d, 0.05) for n, d in ((2, 0.5), (3, 0.2), (4, 0.9)))]
    assert chosen_checkpoint(history, recipe).step == 3
    nearest_repeats = [*history[:2], checkpoint(3, 0.2, 0.4), history[3]]
    assert chosen_checkpoint(nearest_repeats, recipe).step == 2
    all_repeat = [checkpoint(n, 0.1, r) for n, r in ((1, 0.5), (2, 0.3), (3, 0.4))]
    assert chosen_checkpoint(all_repeat, recipe).step == 2


def test_a_kill_leaves_no_note_of_a_checkpoint_that_is_not_there(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", Recipe())
    run.path("candidates/step-000003").mkdir(parents=True)

    def kill(*places):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", kill)
        with pytest.raises(Killed):
            _keep(run, checkpoint(3, 0.2, 0.1))
    assert not run.path("kept.json").exists()
    _keep(run, checkpoint(3, 0.2, 0.1))
    assert run.best.is_dir()
    assert run.read_json("kept.json")["step"] == 3


def test_blocks_of_positions_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    for length in (16, 96, 97):
        ids = rng.integers(12, size=length).tolist()
        weights = np.diff(block_edges(length))
        assert np.average(new_types(ids), weights=weights) == pytest.approx(
            type_token_ratio(ids, length)
        )
        weights = np.diff(np.maximum(block_edges(length) - 3, 0))
        assert np.average(repeats(ids), weights=weights) == pytest.approx(repeated_share(ids, 4))


def test_the_recipes_have_no_decay_no_warm_up_and_a_constant_rate():
    for name in ("hyperfit", "hyperfit_lora"):
        recipe = load_recipe(name)
        assert not recipe.regularizers
        assert recipe.train.schedule == "constant"
        assert recipe.train.warmup_steps == 0


def command(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["heldout", "hyperfit", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_command_concludes_a_run_again(result, monkeypatch, capsys):
    code, out, _ = command(monkeypatch, capsys, "--resume", result.run.folder, "--json")
    assert code == 0
    entry = json.loads(out)
    validate(entry)
    assert entry["verdict"]["sentences"] == result.sentences


def test_report_writes_the_page_again(result, tmp_path):
    page = result.report.read_text(encoding="utf-8")
    result.report.unlink()
    assert write_report([result.run.folder]) == result.report
    assert result.report.read_text(encoding="utf-8") == page
    for runs, out in (([result.run.folder] * 2, None), ([result.run.folder], tmp_path / "x.html")):
        with pytest.raises(UserError, match="stands alone"):
            write_report(runs, out=out)
    copied = tmp_path / "unfinished"
    copytree(result.run.folder, copied)
    (copied / "hyperfit.json").unlink()
    with pytest.raises(UserError, match="hyperfit --resume"):
        write_report([copied])


def test_command_reads_judgements(result, tmp_path, monkeypatch, capsys):
    path = tmp_path / "answers.jsonl"
    lines = result.run.path("judgements.jsonl").read_text().splitlines()
    path.write_text("\n".join(json.dumps({**json.loads(x), "answer": "tie"}) for x in lines))
    words = ("--resume", result.run.folder, "--judgements", path, "--json")
    code, out, _ = command(monkeypatch, capsys, *words)
    assert code == 0
    pairs = json.loads(out)["pairs"]
    assert len(pairs) == 3
    assert all(pair["measurements"][0]["value"] == 0.5 for pair in pairs)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "hyperfit needs --model and --data"),
        (["--resume", "x", "--data", "y"], "--resume goes on with the run as it is"),
        (["--model", "m", "--data", "d", "--judgements", "f"], "needs --resume RUN"),
    ],
)
def test_bad_commands_are_one_line(words, expected, monkeypatch, capsys):
    code, out, err = command(monkeypatch, capsys, *words)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1
