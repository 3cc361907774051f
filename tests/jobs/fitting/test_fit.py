"""The main job from end to end, on a tiny model and real text."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from heldout.core.errors import Interrupted, UserError
from heldout.core.progress import Progress
from heldout.core.run import Run
from heldout.jobs.evidence.kept import Kept
from heldout.jobs.fitting.fit import dry_run, fit, resume
from heldout.jobs.kit.checkpoints import save_model
from heldout.jobs.kit.hashes import verify
from heldout.jobs.kit.prepare import tie
from heldout.lm.load import load_model
from heldout.lm.nll import document_losses

FAST = (
    "train.learning_rate=3e-3",
    "train.max_epochs=3",
    "train.checkpoint_minutes=0",
    "eval.per_epoch=2",
    "eval.max_train_rows=20",
    "eval.num_samples=1",
    "eval.max_new_tokens=4",
    "data.max_length=48",
)


def paragraphs(text, num):
    found = [" ".join(p.split()) for p in text.split("\n\n")]
    return [p[:120] for p in found if len(p) > 100][:num]


class Heard(Progress):
    """The parts of the job that a run tells of, and its notes."""

    def __init__(self):
        self.planned, self.parts, self.notes = [], [], []

    def job(self, parts, spent=0.0):
        self.planned.append([part.name for part in parts])

    def part(self, name):
        self.parts.append(name)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def heard():
    return Heard()


@pytest.fixture(scope="module")
def result(tiny_model_dir, data, tmp_path_factory, heard):
    """One complete run with all that a run can have."""
    return fit(
        str(tiny_model_dir),
        data,
        out=tmp_path_factory.mktemp("runs") / "whole",
        recipe="full",
        settings=[*FAST, "control.fixed_epochs=2"],
        progress=heard,
    )


def test_the_run_tells_its_parts_and_what_each_took(result, heard):
    whole = ["training", "control without regularization", "sealed test", "report"]
    assert heard.notes[0].startswith("time: ")
    assert heard.planned == [whole, []]
    assert heard.parts == ["search", *whole]
    planned = result.run.read_json("plan.json")["estimate"]["parts"]
    assert [part["name"] for part in planned] == whole
    status = result.run.status
    assert set(whole) <= set(status["parts"])
    assert sum(status["parts"].values()) == pytest.approx(status["seconds"], abs=2.0)


def test_the_run_holds_what_it_promises(result):
    promised = (
        "recipe.toml environment.json data.json history.jsonl measurements.json verdict.json "
        "report.html README.md status.json result.json checks.json samples.json "
        "control_history.jsonl best last data/train.jsonl data/validation.jsonl data/test.jsonl "
        "remedies.json evaluations/best-test-readings.npz evaluations/base-generations.json"
    )
    for name in promised.split():
        assert result.run.path(name).exists(), name
    assert result.run.status["state"] == "complete"
    assert not result.run.path("checkpoints").exists()
    hashed = result.run.read_json("hashes.json")["sha256"]
    assert {"report.html", "verdict.json", "measurements.json", "data/test.jsonl"} <= hashed.keys()
    assert verify(result.run).holds


def test_better_than_base_on_the_sealed_test(result):
    figures = result.run.read_json("result.json")["figures"]
    assert figures["test_nll_best"] < figures["test_nll_base"]
    assert figures["test_nll_best_minus_base_high"] < 0
    assert result.verdict.verdicts["fit"].color == "green"
    unmeasured = {"quality", "forgetting"}
    assert {n for n, v in result.verdict.verdicts.items() if v.color == "unknown"} == unmeasured
    assert len(result.run.test_openings) == 1


def test_best_is_the_lowest_of_the_history(result):
    history = result.run.history()
    lowest = min(history, key=lambda entry: entry["validation_nll"])
    assert result.run.read_json("result.json")["best_step"] == lowest["step"]
    assert result.run.losses("best", "validation").nats_per_token == pytest.approx(
        lowest["validation_nll"]
    )


def test_best_reproduces_its_loss_in_plain_transformers(result):
    model = AutoModelForCausalLM.from_pretrained(result.best, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(result.best)
    nats, tokens = 0.0, 0
    for line in result.run.path("data/test.jsonl").read_text().splitlines():
        text = json.loads(line)["text"]
        ids = torch.tensor([[*tokenizer(text).input_ids, tokenizer.eos_token_id]])
        # Windows of 48 tokens that overlap by one, as data.max_length says.
        for start in range(0, ids.shape[1] - 1, 47):
            window = ids[:, start : start + 48]
            with torch.no_grad():
                logits = model(input_ids=window).logits[0, :-1]
            nats += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").item()
        tokens += ids.shape[1] - 1
    expected = result.run.read_json("result.json")["figures"]["test_nll_best"]
    assert nats / tokens == pytest.approx(expected, abs=1e-3)


def test_the_parts_share_no_group(result):
    groups = [
        {
            json.loads(line)["group"]
            for line in result.run.path(f"data/{part}.jsonl").read_text().splitlines()
        }
        for part in ("train", "validation", "test")
    ]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert min(len(groups[1]), len(groups[2])) >= 30


def test_a_complete_run_is_only_judged_again(result):
    again = resume(result.run.folder)
    assert again.verdict == result.verdict
    assert verify(result.run).holds
    assert len(result.run.test_openings) == 1


def comparable(run):
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in run.history()]


@pytest.fixture(scope="module")
def killed_run(tiny_model_dir, data, tmp_path_factory):
    """The same run in a process of its own, killed by SIGKILL after its third evaluation."""
    folder = tmp_path_factory.mktemp("runs") / "killed"
    settings = [*FAST, "control.fixed_epochs=2"]
    command = [sys.executable, "-m", "heldout", "fit", "--model", str(tiny_model_dir)]
    command += ["--data", data, "--out", str(folder), "--recipe", "full"]
    for setting in settings:
        command += ["--set", setting]
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    history = folder / "history.jsonl"
    while time.monotonic() < deadline and process.poll() is None:
        if history.exists() and history.read_text().count("\n") >= 3:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    return folder


@pytest.fixture(scope="module")
def killed_copy(killed_run, tmp_path_factory):
    """As it was killed, before another test goes on with it."""
    return shutil.copytree(killed_run, tmp_path_factory.mktemp("runs") / "copy")


@pytest.mark.slow
def test_kill_and_resume_give_the_same_history(result, killed_run, killed_copy):
    assert Run.open(killed_run).status["state"] == "training"
    resumed = resume(killed_run)
    assert comparable(resumed.run) == comparable(result.run)
    figures = [r.run.read_json("result.json")["figures"] for r in (resumed, result)]
    assert figures[0] == figures[1]


@pytest.mark.slow
def test_of_two_that_resume_at_once_one_goes_on(result, killed_copy):
    command = [sys.executable, "-m", "heldout", "fit", "--resume", str(killed_copy)]
    both = [
        subprocess.Popen(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    errors = {process.wait(): process.communicate()[1] for process in both}
    assert sorted(errors) == [0, 2]
    assert f"{killed_copy} is in use by another" in errors[2]
    assert len(errors[2].splitlines()) == 1
    run = Run.open(killed_copy)
    assert comparable(run) == comparable(result.run)
    assert len(run.test_openings) == 1


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_can_go_on(result, tiny_model_dir, data, tmp_path):
    folder = tmp_path / "interrupted"
    command = [sys.executable, "-m", "heldout", "fit", "--model", str(tiny_model_dir)]
    command += ["--data", data, "--out", str(folder), "--recipe", "full"]
    for setting in (*FAST, "control.fixed_epochs=2"):
        command += ["--set", setting]
    process = subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        history = folder / "history.jsonl"
        if history.exists() and history.read_text().count("\n") >= 2:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert f"`heldout fit --resume {folder}` goes on. Its report so far: {folder}/rep" in errors
    assert "Traceback" not in errors
    run = Run.open(folder)
    assert run.status["state"] == "interrupted"
    assert run.path("report.html").exists()
    assert run.test_openings == []
    validation = [e["validation_nll"] for e in resume(folder).run.history()]
    assert validation == [e["validation_nll"] for e in result.run.history()]


OVERFIT = (
    "train.learning_rate=3e-2",
    "train.checkpoint_minutes=0",
    "eval.per_epoch=1",
    "eval.max_train_rows=20",
    "eval.num_samples=0",
    "data.max_length=48",
)


@pytest.fixture(scope="module")
def few_rows(data, tmp_path_factory):
    """30 rows to train on, 40 and 40 held out: settings for three files."""
    folder = tmp_path_factory.mktemp("few")
    lines = Path(data).read_text().splitlines()
    parts = {"train": lines[:30], "validation": lines[40:80], "test": lines[80:120]}
    for name, rows in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    return folder


def given_parts(folder):
    return [f"data.{part}={folder / part}.jsonl" for part in ("validation", "test")]


@pytest.fixture(scope="module")
def overfitted(tiny_model_dir, few_rows, tmp_path_factory):
    """A run whose held-out loss turns upward long before its planned end."""
    return fit(
        str(tiny_model_dir),
        str(few_rows / "train.jsonl"),
        out=tmp_path_factory.mktemp("runs") / "overfitted",
        recipe="full",
        settings=[
            *OVERFIT,
            *given_parts(few_rows),
            "train.max_epochs=40",
            "control.fixed_epochs=3",
            "regularizers.weight_decay.rate=5.0",
            "regularizers.early_stopping.patience=2",
            "regularizers.early_stopping.certain_rise=99",
        ],
    ).run


def loss_on_disk(run, name):
    loaded = load_model(str(run.path(name)), device="cpu")
    return document_losses(
        loaded.model, run.read_rows("validation"), loaded.tokenizer, max_length=48, batch_size=8
    ).nats_per_token


@pytest.mark.slow
def test_early_stopping_stops_and_rolls_back(overfitted):
    history = overfitted.history()
    result = overfitted.read_json("result.json")
    losses = [entry["validation_nll"] for entry in history]
    assert "no new low" in result["stop_reason"]
    assert result["last_step"] == history[-1]["step"]
    assert history[-1]["epoch"] <= 30, "of 40 that were planned"
    assert losses.index(min(losses)) == len(losses) - 3, "two evaluations of patience"
    assert result["best_step"] == history[-3]["step"]
    # best/ is the rollback, last/ is not.
    assert loss_on_disk(overfitted, "best") == pytest.approx(min(losses), abs=1e-5)
    assert loss_on_disk(overfitted, "last") == pytest.approx(losses[-1], abs=1e-5)
    assert losses[-1] > min(losses) + 0.001


@pytest.mark.slow
def test_the_control_arm_is_the_plain_recipe(overfitted, tiny_model_dir, few_rows, tmp_path):
    plain = fit(
        str(tiny_model_dir),
        str(few_rows / "train.jsonl"),
        out=tmp_path / "plain",
        recipe="plain",
        settings=[*OVERFIT, *given_parts(few_rows), "model.method=full", "train.max_epochs=3"],
    ).run
    control = overfitted.history("control_history.jsonl")
    assert control == plain.history()
    assert control[-1]["epoch"] == 3
    assert control[1]["train_nll"] != overfitted.history()[1]["train_nll"]


class InterruptAt(Progress):
    """Ctrl-C while a given step of the training runs."""

    def __init__(self, step):
        self.left = step
        self.name = ""

    @contextmanager
    def stage(self, name, total=None):
        self.name = name
        yield

    def advance(self, num=1, text=""):
        if self.name == "training" and num:
            self.left -= num
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("patience", [2, 99], ids=["at the stop", "at the last step"])
def test_ctrl_c_at_the_very_end_trains_no_further(patience, tiny_model_dir, few_rows, tmp_path):
    options = [
        *OVERFIT,
        *given_parts(few_rows),
        "train.max_epochs=7.6",
        f"regularizers.early_stopping.patience={patience}",
        "regularizers.early_stopping.certain_rise=99",
    ]
    train = str(few_rows / "train.jsonl")
    arguments = {"recipe": "full", "settings": options}
    whole = fit(str(tiny_model_dir), train, out=tmp_path / "whole", **arguments).run
    last = whole.read_json("result.json")["last_step"]
    with pytest.raises(Interrupted):
        fit(
            str(tiny_model_dir),
            train,
            out=tmp_path / "stopped",
            progress=InterruptAt(last),
            **arguments,
        )
    assert (tmp_path / "stopped" / "checkpoints" / f"checkpoint-{last}").is_dir()
    resumed = resume(tmp_path / "stopped").run
    assert resumed.history() == whole.history()
    figures = [run.read_json("result.json")["figures"] for run in (resumed, whole)]
    assert figures[0] == figures[1]
    for name in ("best", "last"):
        configs = [run.read_json(f"{name}/config.json") for run in (resumed, whole)]
        assert configs[0] == configs[1], name
        assert configs[0]["use_cache"], "as the base model has it"
    keys = [sorted(Kept.of(run).statistics) for run in (resumed, whole)]
    assert keys[0] == keys[1], "which tell of weights, settings and rows"


def test_few_held_out_groups_make_no_claim(tiny_model_dir, few_rows, tmp_path):
    (tmp_path / "test.jsonl").write_text(
        "\n".join((few_rows / "test.jsonl").read_text().splitlines()[:3])
    )
    options = [
        *OVERFIT,
        f"data.validation={few_rows / 'validation.jsonl'}",
        f"data.test={tmp_path / 'test.jsonl'}",
        "train.max_epochs=1",
    ]
    train = str(few_rows / "train.jsonl")
    result = fit(str(tiny_model_dir), train, out=tmp_path / "run", recipe="full", settings=options)
    verdict = result.verdict.verdicts["fit"]
    assert verdict.color == "yellow"
    assert "3 held-out groups are too few" in verdict.sentence
    warnings = [c for c in result.run.read_json("checks.json") if c["status"] == "warning"]
    assert "test part" in [c["name"] for c in warnings]
    (tmp_path / "test.jsonl").write_text((few_rows / "test.jsonl").read_text().splitlines()[0])
    with pytest.raises(UserError, match="The test part has 1 group"):
        fit(str(tiny_model_dir), train, out=tmp_path / "one", recipe="full", settings=options)


@pytest.mark.slow
def test_lora_on_a_conversation_with_metric_and_search(tiny_model_dir, english_text, tmp_path):
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Go on, {number}: {text[:30]}"},
                {"role": "assistant", "content": text[30:70]},
            ],
            "chapter": number // 2,
        }
        for number, text in enumerate(paragraphs(english_text, 260))
    ]
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    result = fit(
        str(tiny_model_dir),
        str(path),
        out=tmp_path / "run",
        recipe="lora",
        settings=[
            *FAST[1:],
            "train.max_epochs=1",
            "data.group=chapter",
            "search.learning_rates=[1e-3, 1e-2]",
            "search.max_steps=4",
            "train.warmup_steps=2",
            "eval.metric=rouge_l",
            "eval.metric_rows=8",
            "data.max_length=96",
        ],
    )
    assert (result.best / "adapter_config.json").exists()
    search = result.run.read_json("search.json")
    assert (len(search["trials"]), search["handed_on"]) == (2, 4)
    assert "metric_best" in result.run.read_json("result.json")["figures"]
    assert result.verdict.verdicts["quality"].color != "unknown"


def test_few_groups_are_cross_validated_without_a_test_claim(tiny_model_dir, data, tmp_path):
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(Path(data).read_text().splitlines()[:24]))
    result = fit(
        str(tiny_model_dir),
        str(few),
        out=tmp_path / "run",
        recipe="full",
        settings=[*FAST, "eval.folds=3", "eval.per_epoch=1"],
    )
    run = result.run
    found = run.read_json("cross_validation.json")
    assert found["folds"] == 3
    lowest = min(found["curve"], key=lambda point: point["validation_nll"])
    assert found["best_epoch"] == lowest["epoch"]
    assert len(run.losses("best", "out_of_fold")) == 24, "every row is held out once"
    assert run.read_json("result.json")["last_epoch"] == pytest.approx(lowest["epoch"], abs=0.4)
    assert run.test_openings == []
    assert result.verdict.verdicts["fit"].color in ("yellow", "red", "unknown")
    assert AutoModelForCausalLM.from_pretrained(run.best)


@pytest.mark.slow
def test_from_scratch_with_a_config(tiny_model_dir, data, tmp_path):
    config = json.loads((tiny_model_dir / "config.json").read_text())
    config |= {"num_hidden_layers": 1, "max_position_embeddings": 64}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    result = fit(
        str(tiny_model_dir),
        data,
        out=tmp_path / "run",
        recipe="full",
        from_scratch=str(path),
        settings=[
            *FAST,
            "train.max_epochs=1",
            "model.tie_weights=false",
            "data.max_length=64",
            "eval.max_new_tokens=8",
        ],
    )
    model = AutoModelForCausalLM.from_pretrained(result.best)
    assert model.config.num_hidden_layers == 1
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_a_diverged_run_stops_and_names_the_batch(tiny_model_dir, data, tmp_path, monkeypatch):
    """One token's embedding is broken, and one training row holds that token.

    A model that is broken from the start is refused; here it shows at that row alone.
    """
    monkeypatch.setattr("heldout.lm.fit_of_weights.refuse_not_finite", lambda *given: None)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    broken = tokenizer("\x07").input_ids
    assert len(broken) == 1
    tie(model, False)
    with torch.no_grad():
        model.get_input_embeddings().weight[broken[0]] = float("nan")
    save_model(model, tokenizer, tmp_path / "model")
    lines = Path(data).read_text().splitlines()
    parts = {"train": lines[:60], "validation": lines[60:100], "test": lines[100:140]}
    parts["train"][33] = json.dumps({"text": "A bell rings: \x07. Then it is silent."})
    for name, rows in parts.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    with pytest.raises(UserError, match="not a finite number"):
        fit(
            str(tmp_path / "model"),
            str(tmp_path / "train.jsonl"),
            out=tmp_path / "run",
            recipe="plain",
            settings=[
                *FAST,
                "model.method=full",
                "eval.max_train_rows=2",
                "eval.per_epoch=8",
                f"data.validation={tmp_path / 'validation.jsonl'}",
                f"data.test={tmp_path / 'test.jsonl'}",
            ],
        )
    run = Run.open(tmp_path / "run")
    assert run.status["state"] == "failed"
    rows = re.search(r"rows \[([\d, ]+)\]", run.status["message"])
    assert rows
    assert 33 in map(int, rows[1].split(","))
    assert np.isfinite([entry["validation_nll"] for entry in run.history()]).all()
    assert AutoModelForCausalLM.from_pretrained(run.best)
    assert run.path("report.html").exists()


def test_a_dry_run_writes_nothing(tiny_model_dir, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = dry_run(str(tiny_model_dir), data, recipe="full", settings=FAST)
    assert list(tmp_path.iterdir()) == []
    assert plan.mode == "split"
    assert sum(plan.rows.values()) == 160
    assert plan.trained_parameters == plan.parameters > 0
    assert {check.name for check in plan.checks} >= {"loss mask", "end of text", "memory", "disk"}


def test_bad_input_writes_nothing(tiny_model_dir, data, tmp_path):
    out = tmp_path / "out"

    def fails(words, *, model=str(tiny_model_dir), rows=data, settings=(), recipe="full"):
        with pytest.raises(UserError, match=words):
            fit(model, rows, out=out, recipe=recipe, settings=[*FAST, *settings])
        assert not out.exists()

    fails("no such file", rows=str(tmp_path / "missing.jsonl"))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    fails("empty", rows=str(empty))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a"}\nnot json\n')
    fails("broken.jsonl line 2", rows=str(broken))
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(json.dumps({"text": f"row {i}"}) for i in range(5)))
    fails("10", rows=str(few))
    some = tmp_path / "some.jsonl"
    some.write_text("\n".join(Path(data).read_text().splitlines()[:20]))
    fails("cannot be used with cross-val", rows=str(some), settings=["train.schedule=linear"])
    fails("control.fixed_epochs cannot", rows=str(some), settings=["control.fixed_epochs=2"])
    hollow = tmp_path / "hollow"
    hollow.mkdir()
    shutil.copy(tiny_model_dir / "config.json", hollow)
    fails("weights", model=str(hollow))
    fails("did you mean 'weight_decay'", settings=["regularizers.weight_decy=true"])
    fails("no LoRA layers", settings=["regularizers.dropout.adapter=.1"])
    fails("eval.metric must be", settings=["eval.metric=exact_mach"])
    fails("needs prompts with answers", settings=["eval.metric=exact_match"])
    fails("eval.embedding_model=nope", settings=["eval.embedding_model=nope"])
    fails("'notracker' is no tracker", settings=["train.report_to=notracker"])
    fails("must be under 512", settings=["eval.max_new_tokens=600"])
    fails("must be a finite number", settings=["regularizers.weight_decay.rate=nan"])
    fails("drops nothing", settings=["regularizers.dropout=true"])
    fails("an adapter folder cannot hold", recipe="lora", settings=["model.tie_weights=false"])
    fails(
        "Too little memory",
        settings=["train.micro_batch_size=100000000", "train.batch_size=100000000"],
    )


def test_settings_of_another_job_are_refused(tiny_model_dir, tmp_path):
    with pytest.raises(UserError, match="fit stops on held-out loss"):
        fit(
            str(tiny_model_dir),
            "train.jsonl",
            out=tmp_path / "run",
            settings=["hyperfit.target_loss=0.1"],
        )
    assert not (tmp_path / "run").exists()
