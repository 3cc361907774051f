"""Three members from scratch on real text, their ensemble, and one model that learns from it."""

import copy
import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

from heldout.cli import main as cli
from heldout.core.errors import Interrupted, UserError
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.core.token_losses import TokenLosses
from heldout.jobs.ensembles.distill import distill, share_kept
from heldout.jobs.ensembles.ensemble import ensemble
from heldout.jobs.fitting.fit import fit
from heldout.lm.load import load_model
from heldout.lm.measuring.token_nats import token_losses
from heldout.lm.nll import document_losses
from heldout.scaling.ensemble import mixture_nats

SETTINGS = (
    "train.learning_rate=1e-2",
    "train.max_epochs=3",
    "train.warmup_steps=2",
    "eval.per_epoch=1",
    "eval.max_train_rows=4",
    "eval.max_recital_rows=4",
    "eval.num_samples=0",
    "eval.max_new_tokens=2",
    "data.max_length=96",
)


@pytest.fixture(scope="module")
def family(tiny_model_dir, english_text, tmp_path_factory):
    """A configuration of one layer, the tiny tokenizer, and 220 rows of documentation."""
    folder = tmp_path_factory.mktemp("family")
    config = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    (folder / "config.json").write_text(json.dumps(config))
    texts = [" ".join(part.split())[:100] for part in english_text.split("\n\n") if len(part) > 90]
    lines = [json.dumps({"text": text}) for text in texts[:220]]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {
        "model": str(tiny_model_dir),
        "data": str(folder / "rows.jsonl"),
        "from_scratch": str(folder / "config.json"),
        "recipe": "full",
        "settings": SETTINGS,
    }


class _StopsAfter(Progress):
    def __init__(self, note):
        self.note_to_stop_at = note

    def advance(self, num=1, text=""):
        if self.note_to_stop_at in text:
            raise Interrupted


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "ensemble"


@pytest.fixture(scope="module")
def result(family, folder):
    return ensemble(**family, members=3, out=folder)


def schema(name):
    path = resources.files("heldout.core") / "schemas" / f"{name}.json"
    return Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))


def test_members_differ_in_their_seed_alone(result, folder):
    runs = [Run.open(folder / member.run) for member in result.members]
    recipes = [run.recipe for run in runs]
    assert [recipe.train.seed for recipe in recipes] == [0, 1, 2]
    assert len({recipe.replace(train={"seed": 0}).to_toml() for recipe in recipes}) == 1
    assert len({run.read_json("data.json")["sha256_parts"]["test"] for run in runs}) == 1
    assert len({member.nats_per_token for member in result.members}) == 3


@pytest.mark.slow
def test_members_side_by_side_are_the_same(result, family, folder, tmp_path):
    settings = [*SETTINGS, "train.side_by_side=2", "train.threads=1"]
    found = ensemble(**{**family, "settings": settings}, members=3, out=tmp_path / "both")
    assert found.members == result.members
    for number in range(3):
        both, one = (Run.open(place / f"member-{number}") for place in (tmp_path / "both", folder))
        figures = [run.read_json("result.json")["figures"] for run in (both, one)]
        assert figures[0] == figures[1]
    assert "member 2 of 3" in (tmp_path / "both" / "logs" / "beside-1.log").read_text() or (
        "member 3 of 3" in (tmp_path / "both" / "logs" / "beside-1.log").read_text()
    )


@pytest.mark.slow
def test_ranges_are_searched_once_for_the_first_member(family, tmp_path):
    settings = [
        *SETTINGS,
        "train.max_epochs=1",
        "regularizers.early_stopping=false",
        "search.ranges.train.max_epochs=[1, 2]",
    ]
    ensemble(**{**family, "settings": settings}, members=2, out=tmp_path)
    first, second = (Run.open(tmp_path / f"member-{number}") for number in (0, 1))
    chosen = first.read_json("tuning.json")["chosen"]
    assert chosen == {"train.max_epochs": 2.0}, "the second epoch gains on so short a training"
    assert not second.path("tuning.json").exists()
    assert second.recipe == first.recipe.replace(train={"seed": first.recipe.train.seed + 1})


def test_losses_are_those_of_the_averaged_distributions(result, folder):
    """By whole distributions of the kept models, in the same windows, on the sealed test."""
    run = Run.open(folder / "member-0")
    rows = list(run.open_test("test"))
    found = []
    for member in result.members:
        loaded = load_model(str(folder / member.run / "best"), device="cpu")
        total = []
        for row in rows:
            ids = loaded.tokenizer(row.messages[0]["content"])["input_ids"]
            assert len(ids) < 96, "one window"
            ids = [*ids, loaded.tokenizer.eos_token_id]
            with torch.no_grad():
                probs_TV = loaded.model(torch.tensor([ids])).logits[0].double().softmax(-1)
            total.append(probs_TV[torch.arange(len(ids) - 1), ids[1:]].numpy())
        found.append(np.concatenate(total))
    together = -np.log(np.mean(found, axis=0)).mean()
    assert result.sizes[-1].nats_per_token == pytest.approx(together, rel=1e-5)
    one = np.mean([-np.log(each).mean() for each in found])
    assert result.measurement("one_member").value == pytest.approx(one, rel=1e-5)


def test_token_losses_add_up_to_document_losses(result, folder):
    run = Run.open(folder / "member-1")
    kept = TokenLosses.load(run.path("evaluations/best-test-tokens.npz"))
    documents = run.losses("best", "test")
    sums_D = np.add.reduceat(kept.nats_N, np.r_[0, np.cumsum(kept.num_tokens_D)[:-1]])
    assert sums_D == pytest.approx(documents.nll_nats_D, rel=1e-5)
    assert (kept.groups_D == documents.groups_D).all()
    loaded = load_model(str(run.best), device="cpu")
    rows = list(run.read_rows("validation"))
    short = {"max_length": 16, "batch_size": 5}  # several windows a row
    tokens = token_losses(loaded.model, rows, loaded.tokenizer, **short)
    whole = document_losses(loaded.model, rows, loaded.tokenizer, **short)
    assert (tokens.num_tokens_D == whole.num_tokens_D).all()
    sums_D = np.add.reduceat(tokens.nats_N, np.r_[0, np.cumsum(tokens.num_tokens_D)[:-1]])
    assert sums_D == pytest.approx(whole.nll_nats_D, rel=1e-5)


def test_more_members_lower_the_loss_and_the_limit_lies_below(result):
    losses = [size.nats_per_token for size in result.sizes]
    assert losses == sorted(losses, reverse=True)
    whole = result.measurement("ensemble")
    assert whole.contrasts["one member"].interval.high < 0
    assert whole.contrasts["the model before training"].difference < -0.5
    limit = result.measurement("ensemble_limit")
    assert isinstance(limit, Measurement)
    assert limit.value < whole.value
    assert limit.interval.low < limit.value < limit.interval.high
    assert result.limit.remaining == pytest.approx(result.curve[2].value - limit.value)
    assert result.cost.forwards == 3
    assert result.cost.parameters == 3 * result.cost.parameters_of_one


def test_folder_holds_the_page_and_the_numbers(result, folder):
    entry = json.loads((folder / "ensemble.json").read_text(encoding="utf-8"))
    schema("ensemble").validate(entry)
    assert entry == json.loads(json.dumps(result.to_json()))
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) <= 400_000
    assert 'id="members-title"' in text
    assert result.headline in text


def test_a_finished_ensemble_is_only_measured_again(result, family, folder):
    stamps = [path.stat().st_mtime_ns for path in folder.glob("member-*/best/*.safetensors")]
    again = ensemble(**family, members=3, out=folder)
    assert again == result
    assert stamps == [p.stat().st_mtime_ns for p in folder.glob("member-*/best/*.safetensors")]
    two = ensemble(**family, members=2, out=folder)
    assert two.limit is None
    assert isinstance(two.measurement("ensemble_limit"), NotMeasured)
    assert any("2 members" in note for note in two.notes)
    ensemble(**family, members=3, out=folder)
    changed = {**family, "settings": (*SETTINGS, "train.max_epochs=2")}
    with pytest.raises(UserError, match="another model, data or recipe"):
        ensemble(**changed, members=3, out=folder)


@pytest.fixture(scope="module")
def distilled(result, folder):
    killed = folder / "distilled"  # before its data was written
    Run.create(killed, Recipe())
    return distill(folder, weight=0.8)


@pytest.mark.slow
def test_the_student_is_taught_by_all_members_on_their_rows(distilled, folder):
    run = Run.open(Path(distilled.run))
    values = run.recipe.regularizers["distillation"]
    assert values["teachers"] == [str(folder / f"member-{k}" / "best") for k in range(3)]
    assert (values["weight"], distilled.weight) == (0.8, 0.8)
    assert run.recipe.train.seed == 3
    first = Run.open(folder / "member-0")
    parts = "sha256_parts"
    assert run.read_json("data.json")[parts] == first.read_json("data.json")[parts]
    entry = json.loads(run.path("distill.json").read_text(encoding="utf-8"))
    schema("distill").validate(entry)
    assert entry == json.loads(json.dumps(distilled.to_json()))
    assert any(
        note.endswith("size and recipe; its loss, its seed differ.") for note in entry["notes"]
    )


@pytest.mark.slow
def test_the_share_is_that_of_the_three_losses(distilled, result):
    student = distilled.measurement("student")
    one, whole = result.measurement("one_member").value, result.sizes[-1].nats_per_token
    share = distilled.measurement("distilled_share")
    assert share.value == pytest.approx((one - student.value) / (one - whole))
    assert share.interval.low <= share.value <= share.interval.high
    assert student.contrasts["one member"].difference == pytest.approx(student.value - one)


def test_shares_of_known_answer():
    rng = np.random.default_rng(0)
    tokens_G = rng.integers(20, 60, size=40).astype(float)
    one_G = tokens_G * rng.normal(3, 0.3, 40)
    gain_G = tokens_G * rng.normal(0.2, 0.05, 40)
    for share in (0.0, 0.8, 1.0):
        found = share_kept(one_G, one_G - share * gain_G, one_G - gain_G, tokens_G)
        assert found.value == pytest.approx(share, abs=1e-9)
        assert found.interval.high - found.interval.low < 1e-6
    noisy_G = one_G - 0.8 * gain_G + tokens_G * rng.normal(0, 0.03, 40)
    found = share_kept(one_G, noisy_G, one_G - gain_G, tokens_G)
    assert found.interval.low < 0.8 < found.interval.high
    assert 0.01 < found.interval.high - found.interval.low < 0.3
    nothing_G = tokens_G * rng.normal(0, 0.2, 40)
    found = share_kept(one_G, noisy_G, one_G - nothing_G + nothing_G.mean(), tokens_G)
    assert isinstance(found, NotMeasured)
    assert "not surely above 0" in found.reason


def run_cli(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["heldout", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def options(family):
    words = ["--model", family["model"], "--data", family["data"], "--recipe", family["recipe"]]
    words += ["--from-scratch", family["from_scratch"]]
    return words + [word for setting in family["settings"] for word in ("--set", setting)]


@pytest.mark.slow
def test_commands_print_what_the_folder_holds(distilled, family, folder, monkeypatch, capsys):
    words = ["ensemble", *options(family), "--members", "3", "--out", folder]
    code, shown, _ = run_cli(monkeypatch, capsys, *words, "--json")
    assert code == 0
    assert json.loads(shown) == json.loads((folder / "ensemble.json").read_text(encoding="utf-8"))
    code, shown, _ = run_cli(monkeypatch, capsys, *words)
    assert code == 0
    assert "without end" in shown
    assert "3 forwards a token" in shown
    words = ["distill", folder, "--weight", "0.8"]
    code, shown, _ = run_cli(monkeypatch, capsys, *words, "--json")
    assert code == 0
    assert json.loads(shown) == json.loads(json.dumps(distilled.to_json()))
    code, shown, _ = run_cli(monkeypatch, capsys, *words)
    assert code == 0
    assert "against one member" in shown


def test_dry_runs_write_nothing(result, family, folder, tmp_path, monkeypatch, capsys):
    words = ["ensemble", *options(family), "--out", tmp_path / "out", "--dry-run"]
    code, shown, _ = run_cli(monkeypatch, capsys, *words)
    assert code == 0
    assert "one member of 5" in shown
    code, shown, _ = run_cli(
        monkeypatch, capsys, "distill", folder, "--out", tmp_path / "out", "--dry-run", "--json"
    )
    assert code == 0
    assert "Distillation" in json.loads(shown)["step_cost"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--members", "1"], "--members must be 2 or more, got 1"),
        (["--set", "data.test_share=0"], "measured on a sealed test part"),
        (["--recipe", "ful"], "did you mean 'full'"),
    ],
)
def test_bad_input_is_one_line(words, expected, family, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    code, shown, err = run_cli(
        monkeypatch, capsys, "ensemble", *options(family), "--out", out, *words
    )
    assert (code, shown) == (2, "")
    assert expected in err.splitlines()[-1]
    assert not out.exists()


def test_what_cannot_be_distilled_is_one_line(result, folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "ensemble.json").write_text('{"schema": "heldout.fit/1"}')
    for place in (tmp_path, tmp_path / "nowhere", folder / "member-0"):
        code, _, err = run_cli(monkeypatch, capsys, "distill", place)
        assert code == 2
        assert "is no finished ensemble" in err
    words = ["distill", folder, "--out", tmp_path / "out"]
    for more, expected in (
        (["--weight", "2"], "must be 0 to 1, got 2.0"),
        (["--set", "data.seed=3"], "the ensemble's own split"),
        (["--set", "search.ranges.train.max_epochs=[3, 6]"], "give the ranges to heldout ensemble"),
    ):
        code, _, err = run_cli(monkeypatch, capsys, *words, *more)
        assert code == 2
        assert expected in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_teachers_with_another_tokenizer_are_refused_before_the_run(
    result, family, folder, tiny_tokenizer, tmp_path
):
    other = copy.deepcopy(tiny_tokenizer)
    vocabulary = json.loads(other.backend_tokenizer.to_str())
    tokens = vocabulary["model"]["vocab"]
    tokens["a"], tokens["b"] = tokens["b"], tokens["a"]
    loaded = load_model(str(folder / "member-0" / "best"), device="cpu")
    loaded.model.save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(vocabulary))
    teachers = json.dumps([str(tmp_path / "other")])
    changed = {
        **family,
        "settings": (*SETTINGS, f"regularizers.distillation.teachers={teachers}"),
    }
    with pytest.raises(UserError, match="another tokenizer than the model"):
        fit(**changed, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_interrupted_ensemble_goes_on_to_the_same_numbers(result, family, folder, tmp_path):
    out = tmp_path / "parts"
    with pytest.raises(Interrupted):
        ensemble(**family, members=2, out=out, progress=_StopsAfter("held-out"))
    assert not (out / "ensemble.json").exists()
    found = ensemble(**family, members=2, out=out)
    assert [m.nats_per_token for m in found.members] == [
        m.nats_per_token for m in result.members[:2]
    ]
    kept = [
        TokenLosses.load(folder / f"member-{k}" / "evaluations/best-test-tokens.npz").nats_N
        for k in range(2)
    ]
    assert found.sizes[-1].nats_per_token == pytest.approx(mixture_nats(np.stack(kept)).mean())
