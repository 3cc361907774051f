"""Advice on runs that follow a known law, on published constants, and on a tiny model."""

import json
import math
import re
from importlib import resources

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from heldout.cli import main as cli
from heldout.cli.advise import show_advice
from heldout.core.errors import UserError
from heldout.core.language import using
from heldout.jobs.fitting.fit import dry_run
from heldout.jobs.planning.advise import advise
from heldout.jobs.planning.fitted_law import OwnRuns
from heldout.jobs.planning.question import AskedData, AskedModel, Budget, Question
from heldout.scaling.chinchilla import Chinchilla, compute_optimum
from heldout.scaling.lovelace import Lovelace
from heldout.scaling.muennighoff import PUBLISHED, muennighoff_loss
from heldout.scaling.optimum import Limits, best_point, trained
from heldout.scaling.runs import points

ONE_EPOCH = {"E": 1.8, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.37}
REPEATED = {**ONE_EPOCH, "P": 0.05, "delta": 0.6, "kappa": 0.8}


def write_runs(path, N, D, U, loss):
    rows = [",".join(f"{x!r}" for x in map(float, row)) for row in zip(N, D, U, loss, strict=True)]
    path.write_text("\n".join(["total_parameters,tokens,U,loss", *rows]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def one_epoch(folder):
    """30 runs of one epoch with 1 % noise."""
    N = np.repeat(np.geomspace(2e7, 3e9, 6), 5)
    D = N * np.tile(np.geomspace(3, 300, 5), 6)
    loss = Chinchilla().predict(points(N, D), ONE_EPOCH)
    loss = loss * np.exp(0.01 * np.random.default_rng(0).normal(size=30))
    return write_runs(folder / "one_epoch.csv", N, D, D, loss)


@pytest.fixture(scope="module")
def repeated(folder):
    """48 runs of up to 100 epochs, without noise."""
    N, D, epochs = (
        axis.ravel()
        for axis in np.meshgrid(
            np.geomspace(2e7, 1e9, 4), np.geomspace(1e9, 5e10, 3), [1, 4, 20, 100]
        )
    )
    loss = Lovelace().predict(points(N, D, D / epochs), REPEATED)
    return write_runs(folder / "<b>repeated.csv", N, D, D / epochs, loss)


def ask(*, runs=None, parameters=None, unique_tokens=None, flops=None, num_resamples=2, **question):
    """A question in numbers, with ``runs`` a file."""
    return advise(
        Question(
            AskedModel(parameters=parameters),
            AskedData(unique_tokens=unique_tokens),
            Budget(flops),
            runs=runs and OwnRuns(runs),
            **question,
        ),
        num_resamples=num_resamples,
    )


@pytest.fixture(scope="module")
def advice(repeated):
    return ask(
        runs=repeated,
        law="lovelace",
        unique_tokens=3e8,
        flops=3e18,
        serve_tokens=1e12,
        num_resamples=30,
    )


def validate(entry):
    path = resources.files("heldout.core") / "schemas" / "advice.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(entry)


def test_noiseless_runs_give_the_true_optimum(advice):
    law = Lovelace()
    limits = Limits(3e8, 3e18, 100.0)
    N, D = best_point(law, law.values(REPEATED), limits)
    best = (advice.plan.N, advice.plan.D)
    assert best == pytest.approx((N, D), rel=0.02)
    truth = float(law.loss(trained([N], [D], 3e8), law.values(REPEATED))[0])
    assert advice.plan.loss == pytest.approx(truth, rel=1e-4)
    assert advice.plan.low <= truth * 1.0001
    assert advice.plan.high >= truth * 0.9999
    assert advice.plan.epochs > 4
    assert advice.setting("epochs").value == advice.plan.epochs


def test_doublings_agree_with_the_law(advice):
    law, plan = Lovelace(), advice.plan
    values = law.values(advice.law.parameters)
    for each, (N, D, U) in zip(
        advice.doublings,
        [
            (plan.N, 2 * plan.D, 2 * plan.U),
            (2 * plan.N, plan.D, plan.U),
            (plan.N, 2 * plan.D, plan.U),
        ],
        strict=True,
    ):
        new, old = (float(law.loss(points([n], [d], u), values)[0]) for n, d, u in
                    ((N, D, U), (plan.N, plan.D, plan.U)))  # fmt: skip
        assert each.change == pytest.approx(new - old)
        assert each.low <= each.change <= each.high
        assert each.training.flops == pytest.approx(2 * plan.flops)
    # What is best within the compute gains most from more data here, and little from the others.
    changes = {each.what: each.change for each in advice.doublings}
    assert changes["data"] < min(changes["parameters"], changes["epochs"])


def test_the_turning_point_is_the_true_one(advice):
    law = Lovelace()
    _, D = best_point(law, law.values(REPEATED), Limits(3e8, math.inf, 1000.0), advice.plan.N)
    assert advice.setting("overfits beyond").value == pytest.approx(D / 3e8, rel=0.02)


def test_more_serving_asks_for_a_smaller_model(repeated, advice):
    more = ask(
        runs=repeated, law="lovelace", unique_tokens=3e8, flops=3e18, serve_tokens=1e14,
    )  # fmt: skip
    assert more.serving.training.N < advice.serving.training.N < advice.plan.N
    assert more.serving.saved_share > advice.serving.saved_share > 0
    assert more.serving.training.loss == pytest.approx(advice.plan.loss, rel=1e-6)


def test_what_lies_outside_is_called_a_guess(repeated, advice):
    assert advice.plan.guesses == ()
    far = ask(runs=repeated, law="lovelace", unique_tokens=3e12, flops=3e23)
    axes = {each.axis: each for each in far.plan.guesses}
    assert {"N", "D", "flops"} <= axes.keys()
    assert axes["N"].factor == pytest.approx(far.plan.N / 1e9)
    assert any("The plan is a guess" in note for note in far.notes)


@pytest.mark.slow
def test_beyond_four_epochs_only_a_law_that_can_rise(repeated):
    for law in ("chinchilla", "muennighoff", "practical"):
        found = ask(runs=repeated, law=law, parameters=1e8, unique_tokens=3e8, flops=3e20)
        assert found.plan.epochs <= 4.001
        assert "cannot rise" in found.setting("epochs").sentence
        assert found.setting("overfits beyond").value is None
        (epochs,) = (each for each in found.doublings if each.what == "epochs")
        assert epochs.change is None
        with pytest.raises(UserError, match=r"--epochs 10 cannot be answered.*cannot rise"):
            ask(runs=repeated, law=law, unique_tokens=3e8, flops=3e18, epochs=10)
    with pytest.raises(UserError, match="go to 100 epochs"):
        ask(runs=repeated, law="lovelace", unique_tokens=3e8, flops=3e18, epochs=101)


def test_runs_of_few_epochs_say_nothing_of_many(one_epoch):
    found = ask(runs=one_epoch, law="lovelace", parameters=1e8, unique_tokens=1e9)
    assert found.plan.epochs <= 4.001
    assert found.law.most_epochs == 4
    assert found.setting("parameters").value is None  # no compute was given


def test_the_best_forecaster_is_taken_with_intervals(one_epoch):
    found = ask(runs=one_epoch, unique_tokens=1e14, flops=1e20, num_resamples=100)
    assert found.law.basis == "own runs"
    size = found.setting("parameters")
    truth, _ = compute_optimum(1e20, **ONE_EPOCH)
    assert size.low < truth < size.high
    assert found.plan.low < found.plan.loss < found.plan.high


def test_asked_epochs_are_answered(advice, repeated):
    found = ask(runs=repeated, law="lovelace", unique_tokens=3e8, flops=3e18, epochs=20)
    assert found.plan.epochs == pytest.approx(20)
    assert found.plan.flops == pytest.approx(3e18)
    assert found.plan.loss >= advice.plan.loss
    with pytest.raises(UserError, match="the budget is 3e"):
        ask(
            runs=repeated, law="lovelace", unique_tokens=3e8, flops=3e18, epochs=20, parameters=1e10
        )


def test_published_constants_are_marked_and_capped():
    found = ask(unique_tokens=2e9, flops=1e20)
    plan = found.plan
    assert found.law.basis == "published, not yours"
    assert plan.loss == pytest.approx(muennighoff_loss(plan.N, plan.D, 2e9, **PUBLISHED))
    assert plan.epochs == pytest.approx(4)
    assert (plan.low, plan.high) == (None, None)
    assert found.setting("weight decay").value == pytest.approx(1.09 * (plan.N / 2e9) ** 0.75)
    assert found.other.D <= 2e9
    assert any("not yours" in note for note in found.notes)
    with pytest.raises(UserError, match="cannot be answered"):
        ask(unique_tokens=2e9, flops=1e20, epochs=8)


def test_what_is_left_of_the_compute_buys_an_ensemble():
    found = ask(parameters=1e8, unique_tokens=1e9, flops=1e19)
    assert found.plan.flops == pytest.approx(6 * 1e8 * 4e9)
    assert found.setting("ensemble size").value == 4  # 1e19 / 2.4e18
    assert found.best_size.N > 1e8


def test_far_from_the_tuned_optima_weight_decay_is_not_known():
    found = ask(parameters=1e9, unique_tokens=1e6)
    assert found.setting("weight decay").value is None
    assert "1e+03 parameters per unique token" in found.setting("weight decay").sentence
    assert found.plan.guesses


def test_a_pretrained_model_without_rows_or_runs_is_told_what_is_missing(tiny_model_dir):
    question = Question(AskedModel(str(tiny_model_dir)), AskedData(unique_tokens=1e6))
    found = advise(question)
    assert found.is_pretrained
    assert (found.law, found.plan, found.doublings, found.settings) == (None, None, (), ())
    assert found.fine_tuning is None
    (note,) = found.notes
    assert "--runs" in note
    assert "--data for a recipe" in note
    assert found.parameters > 10_000
    validate(json.loads(json.dumps(found.to_json())))


@pytest.fixture(scope="module")
def few_rows(english_text, folder):
    """90 paragraphs, and one of them three times more."""
    texts = [" ".join(p.split()) for p in english_text.split("\n\n") if len(p) > 100][:90]
    path = folder / "few rows.jsonl"
    path.write_text("\n".join(json.dumps({"body": text[:90]}) for text in [*texts, *texts[:1] * 3]))
    return path


@pytest.fixture(scope="module")
def for_rows(tiny_model_dir, few_rows, folder):
    settings = ("data.columns.text=body", "data.max_length=48")
    question = Question(
        AskedModel(str(tiny_model_dir)),
        AskedData(str(few_rows)),
        Budget(hours=0.5),
        settings=settings,
    )
    return advise(question, out=folder / "for rows")


def test_a_pretrained_model_with_rows_gets_a_recipe_by_what_was_measured(for_rows, few_rows):
    found = for_rows.fine_tuning
    facts = {fact.name: fact.value for fact in found.facts}
    assert (facts["rows"], facts["kind"], facts["script"]) == (93, "text", "LATIN")
    assert facts["duplicate_share"] == pytest.approx(3 / 93)
    assert facts["parameters"] == for_rows.parameters
    assert facts["scored_tokens"] == for_rows.unique_tokens
    assert 5 < facts["base_nats"] < 7  # of a random model with 400 tokens
    bits = facts["scored_tokens"] * facts["base_nats"] / math.log(2)
    assert facts["bits"] == pytest.approx(bits)
    assert facts["full_filled_share"] == pytest.approx(bits / (2.7 * facts["parameters"]))
    assert facts["adapter_parameters"] < facts["parameters"]
    assert found.recipe == "full"
    check, fit = found.commands
    assert check.startswith("heldout check '")
    assert check.endswith("data.max_length=48")
    assert "--data clean --recipe full --minutes 30 --set data.max_length=48" in fit
    assert "columns" not in fit, "the clean copy has columns of its own"
    assert (for_rows.settings, for_rows.notes) == ((), ())
    validate(json.loads(json.dumps(for_rows.to_json())))


def test_the_page_of_a_recipe_has_its_reasons(for_rows, folder):
    text = (folder / "for rows" / "report.html").read_text(encoding="utf-8")
    assert "Fine-tune with the recipe full" in text
    assert ">full_recipe, each_regularizer</span>" in text
    assert for_rows.fine_tuning.not_known in text
    assert 'id="settings-title"' not in text


def test_a_recipe_in_words_and_in_chinese(for_rows, capsys):
    show_advice(for_rows, as_json=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "heldout fit --model" in shown
    assert "recipe: full: all weights" in shown
    assert "record: full_recipe, each_regularizer" in shown
    assert shown.count("Not known") == 1
    with using("zh"):
        show_advice(for_rows, as_json=False)
    shown = capsys.readouterr().out
    left = re.sub(r"heldout .*|--set \S+|--\S+|\S*/\S*|\w+_\w+|Lee et al.*", "", shown)
    words = set(re.findall(r"[A-Za-z]{4,}", left))
    assert words <= {"full", "token", "ample", "Latin", "LoRA", "capacity"}, sorted(words)


def test_a_plan_tells_the_advice_in_one_line(tiny_model_dir, few_rows):
    settings = ["data.columns.text=body", "data.max_length=48"]
    plan = dry_run(str(tiny_model_dir), str(few_rows), settings=settings)
    (line,) = (check for check in plan.checks if check.name == "advice")
    assert line.message.startswith(
        "first a clean copy; --recipe full; as here; record: full_recipe"
    )


def test_a_configuration_is_counted_and_data_too(tiny_model_dir, english_text, tmp_path):
    path = tmp_path / "data.jsonl"
    texts = [" ".join(p.split()) for p in english_text.split("\n\n") if len(p) > 100][:150]
    path.write_text("\n".join(json.dumps({"text": text[:200]}) for text in texts))
    question = Question(
        AskedModel(str(tiny_model_dir), str(tiny_model_dir / "config.json")),
        AskedData(str(path)),
        Budget(hours=1, flops_per_second=1e9),
        recipe="full",
    )
    found = advise(question)
    assert not found.is_pretrained
    assert found.flops == 3.6e12
    assert 150 * 20 < found.unique_tokens < 150 * 200
    assert found.parameters == found.plan.N
    assert found.plan.guesses[0].factor > 1000


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["heldout", "plan", "advise", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_json_on_the_command_line(repeated, monkeypatch, capsys, tmp_path):
    out = tmp_path / "advice"
    code, printed, _ = run(
        monkeypatch, capsys, "--runs", repeated, "--law", "lovelace", "--unique-tokens", "3e8",
        "--flops", "3e18", "--serve-tokens", "1e12", "--out", out, "--json",
    )  # fmt: skip
    assert code == 0
    entry = json.loads(printed)
    validate(entry)
    assert entry == json.loads((out / "advice.json").read_text(encoding="utf-8"))
    text = (out / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) <= 400_000
    assert 'id="isoloss"' in text
    assert "What twice of it would bring" in text
    assert "<b>repeated" not in text


def test_readable_words(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "--unique-tokens", "2e9", "--flops", "1e20")
    assert code == 0
    words = " ".join(out.split())
    assert "published, not yours" in words
    assert "2 x data: Twice the data, at twice the compute: -0." in words
    assert "not known" in words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--flops", "1e20"], "How much data is there?"),
        (["--unique-tokens", "1e9"], "Without a limit on compute"),
        (["--unique-tokens", "-1", "--flops", "1e20"], "--unique-tokens must be a positive"),
        (["--unique-tokens", "1e9", "--flops", "0"], "compute must be a positive"),
        (["--unique-tokens", "1e9", "--hours", "2"], "need --flops-per-second"),
        (["--unique-tokens", "1e9", "--minutes", "0"], "must be a positive number, got 0"),
        (["--unique-tokens", "1e9", "--minutes", "9", "--hours", "2"], "not both"),
        (
            ["--unique-tokens", "1e9", "--flops", "1e20", "--law", "hybrid"],
            "published constants of",
        ),
        (["--data", "x.jsonl", "--flops", "1e20"], "name the tokenizer with --model"),
        (["--unique-tokens", "1e9", "--measure", "--flops", "1"], "--measure trains on parts"),
        (["--unique-tokens", "1e9", "--flops", "1e20", "--epochs", ".5"], "must be 1 or more"),
        (["-m", "m", "-d", "d", "--goal", "accuracy"], "--goal must be one of loss, memorization"),
        (["--unique-tokens", "1e9", "--flops", "1", "--goal", "loss"], "--goal loss asks for a"),
    ],
)
def test_bad_questions_are_one_line(words, expected, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, *words)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["1e8,1e9,1e9,3.0", "2e8,2e9,2e9,2.9"], "5 parameters and there are 2 runs"),
        (["1e8,1e9,1e9,-3.0"] * 9, "must be positive"),
        (["1e8,1e9,1e9,low"] * 9, "must be a number"),
    ],
)
def test_bad_runs_are_one_line(lines, expected, monkeypatch, capsys, tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(["N,D,U,loss", *lines]), encoding="utf-8")
    code, _, err = run(
        monkeypatch, capsys, "--runs", path, "--unique-tokens", "1e9", "--flops", "1e20",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 2
    assert expected in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
