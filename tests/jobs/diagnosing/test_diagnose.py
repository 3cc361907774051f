"""A model trained by a plain Trainer until it recites, diagnosed from its output folder."""

import json
import re
import shutil
from importlib import resources
from xml.etree import ElementTree

import jsonschema
import pytest
import torch

from heldout.cli.main import command_line
from heldout.core.errors import UserError
from heldout.core.results.diagnosis import Diagnosis
from heldout.jobs.diagnosing.diagnose import diagnose
from heldout.jobs.fitting.fit import fit
from heldout.lm.load import load_model

SETTINGS = ("data.max_length=64", "eval.batch_size=16")


@pytest.fixture(scope="module")
def places(tiny_model_dir, english_text, tmp_path_factory):
    """A Trainer's output with three checkpoints, and its two files of texts."""
    from transformers import Trainer, TrainingArguments

    folder = tmp_path_factory.mktemp("trained")
    loaded = load_model(str(tiny_model_dir), device="cpu")
    paragraphs = [" ".join(p.split()) for p in english_text.split("\n\n")]
    long_enough = list(dict.fromkeys(p for p in paragraphs if len(p) > 300))
    beginnings = (
        loaded.tokenizer.decode(loaded.tokenizer(p)["input_ids"][:44]) for p in long_enough
    )
    # One of those that differ in a sign alone: it would be a leak.
    by_letters = {"".join(filter(str.isalpha, text)): text for text in beginnings}
    texts = list(by_letters.values())[:150]
    parts = {"train": texts[0:100:2], "heldout": texts[1:100:2], "other": texts[100:]}
    for name, of_part in parts.items():
        lines = [json.dumps({"text": text}) for text in of_part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    items = []
    for text in parts["train"]:
        ids = [*loaded.tokenizer(text)["input_ids"], loaded.tokenizer.eos_token_id]
        ids = (ids + [loaded.tokenizer.eos_token_id] * 48)[:48]
        items.append({"input_ids": torch.tensor(ids), "labels": torch.tensor(ids)})
    arguments = TrainingArguments(
        output_dir=str(folder / "out"),
        num_train_epochs=60,
        per_device_train_batch_size=10,
        learning_rate=1e-2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        save_steps=100,
        eval_strategy="steps",
        eval_steps=100,
        logging_steps=50,
        seed=0,
    )
    trainer = Trainer(
        loaded.model,
        arguments,
        train_dataset=items,
        eval_dataset=items[:4],
        processing_class=loaded.tokenizer,
    )
    trainer.train()
    return folder


@pytest.fixture(scope="module")
def memorized(places, tiny_model_dir):
    return diagnose(
        places / "out",
        train=places / "train.jsonl",
        heldout=places / "heldout.jsonl",
        base=str(tiny_model_dir),
        domains={"other": str(places / "other.jsonl")},
        settings=SETTINGS,
        out=places / "diagnosis",
    )


def value(result, name, control=""):
    found = next(m for m in result.measurements if m.name == name)
    return found.contrasts[control].difference if control else found.value


def test_a_model_that_memorized_is_told(memorized):
    assert value(memorized, "recital_best") > 0.5
    assert memorized.verdict.verdicts["memorization"].color == "red"
    assert value(memorized, "generalization_gap_best", "base") > 1
    assert value(memorized, "membership_auc_loss_best") > 0.95
    assert abs(value(memorized, "membership_auc_loss_base") - 0.5) < 0.2
    assert memorized.verdict.verdicts["leakage"].color == "green"
    assert value(memorized, "domain_nll_other_best", "base") != 0
    assert memorized.verdict.causes
    assert re.search(r"[^-]\d\.\d+ \[\d.*\] more\.", memorized.verdict.headline)


def test_memorized_rows_are_shown_as_they_stand(memorized, places):
    lines = (places / "train.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    assert len(memorized.recited) > 20
    for row in memorized.recited:
        assert row.suffix.strip()
        assert row.prefix + row.suffix in texts[row.row]
        assert 0 < row.probability <= 1


def test_checkpoints_are_followed(memorized):
    steps = [point.step for point in memorized.facts.history]
    assert steps == [0, 100, 200, 300]  # the base first
    losses = [point.train_nll for point in memorized.facts.history]
    assert losses == sorted(losses, reverse=True)
    assert memorized.facts.epochs == 60


def test_json_holds_everything_and_fits_its_schema(memorized, places):
    entry = json.loads((places / "diagnosis" / "diagnosis.json").read_text())
    path = resources.files("heldout.core") / "schemas" / "diagnosis.json"
    jsonschema.validate(entry, json.loads(path.read_text(encoding="utf-8")))
    assert json.loads(json.dumps(Diagnosis.from_json(entry).to_json())) == entry
    assert entry["seconds"] == memorized.seconds


def test_the_page_shows_and_escapes_what_is_recited(memorized, places):
    page = (places / "diagnosis" / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) <= 400_000
    assert "Learned by heart" in page
    assert "reliability" in page
    marked = re.findall(r"<mark>([^<]+)</mark>", page)
    assert len(marked) >= len(memorized.recited[:30])
    without_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r'(src|href)="http', without_scripts)


def test_the_base_model_against_itself_has_nothing(places, tiny_model_dir):
    result = diagnose(
        str(tiny_model_dir),
        train=places / "train.jsonl",
        heldout=places / "heldout.jsonl",
        base=str(tiny_model_dir),
        settings=SETTINGS,
        generate=False,
    )
    assert value(result, "generalization_gap_best", "base") == pytest.approx(0, abs=1e-9)
    assert value(result, "test_nll_best", "base") == pytest.approx(0, abs=1e-9)
    assert result.recited == []
    assert result.verdict.verdicts["memorization"].color != "red"
    named = {m.name for m in result.measurements}
    assert "seq_rep_4_best" in named  # not measured, with its reason
    assert not any(cause.name == "too_many_epochs" for cause in result.verdict.causes)


def test_leaked_rows_are_no_control(places, tiny_model_dir, tmp_path):
    train = (places / "train.jsonl").read_text().splitlines()
    heldout = (places / "heldout.jsonl").read_text().splitlines()
    (tmp_path / "leaky.jsonl").write_text("\n".join([*heldout[:30], *train[:10]]) + "\n")
    result = diagnose(
        places / "out" / "checkpoint-300",
        train=places / "train.jsonl",
        heldout=tmp_path / "leaky.jsonl",
        base=str(tiny_model_dir),
        settings=SETTINGS,
        generate=False,
    )
    assert result.facts.leak_share == pytest.approx(0.25)
    assert result.verdict.verdicts["leakage"].color == "red"
    assert any("10 held-out rows stand in" in text for text in result.warnings)
    recital = next(m for m in result.measurements if m.name == "recital_best")
    assert recital.contrasts["heldout"].difference > 0.5


def test_a_log_alone_says_what_it_can(places, capsys):
    state = places / "out" / "checkpoint-300" / "trainer_state.json"
    command_line()(["diagnose", str(state), "--json"], standalone_mode=False)
    entry = json.loads(capsys.readouterr().out)
    assert [point["step"] for point in entry["facts"]["history"]] == [100, 200, 300]
    assert entry["facts"]["learning_rate"] <= 1e-2
    assert entry["warnings"][0].startswith("By the log, the held-out loss was lowest at ")
    assert {light["light"] for light in entry["verdict"]["verdicts"].values()} <= {
        "unknown",
        "yellow",
    }


def test_gates_and_junit(places, tiny_model_dir, tmp_path, capsys):
    arguments = [
        "diagnose",
        str(places / "out" / "checkpoint-300"),
        "--train",
        str(places / "train.jsonl"),
        "--heldout",
        str(places / "heldout.jsonl"),
        "--base",
        str(tiny_model_dir),
        "--no-generate",
        "--probe",
        "memorization",
        "--fail-on",
        "memorization",
        "--fail-on",
        "forgetting",
        "--junit",
        str(tmp_path / "lights.xml"),
    ]
    for setting in SETTINGS:
        arguments += ["--set", setting]
    code = command_line()(arguments, standalone_mode=False)
    assert code == 1
    assert "failed on memorization, forgetting (not measured)" in capsys.readouterr().err
    suite = ElementTree.parse(tmp_path / "lights.xml").getroot()
    assert suite.get("failures") == "2"
    kinds = {case.get("name"): [child.tag for child in case] for case in suite}
    assert kinds["memorization"] == ["failure", "system-out"]
    assert kinds["quality"] == ["skipped", "system-out"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": ""}, "without a run --train must be given"),
        ({"heldout": "EMPTY"}, "is empty"),
        ({"goal": "fame"}, "--goal must be one of generalize, recite, style"),
        ({"most_rows": 1}, "--most-rows must be 2 or more, got 1"),
        ({"probes": ("spleen",)}, "--probe spleen: no such probe"),
        ({"facts": {"epoch": 3}}, "--fact epoch: no such fact"),
        ({"canaries": "EMPTY"}, "is not what heldout check --plant-canaries writes"),
        ({"lexicon": "EMPTY"}, "is not JSON"),
    ],
)
def test_one_clear_line(places, tmp_path, change, message):
    (tmp_path / "empty.jsonl").write_text("")
    change = {
        name: str(tmp_path / "empty.jsonl") if value == "EMPTY" else value
        for name, value in change.items()
    }
    options = {
        "train": places / "train.jsonl",
        "heldout": places / "heldout.jsonl",
        "generate": False,
        "probes": ("memorization", "bias"),
        **change,
    }
    with pytest.raises(UserError, match=message) as raised:
        diagnose(
            places / "out" / "checkpoint-100", out=tmp_path / "out", settings=SETTINGS, **options
        )
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_an_arm_of_a_run_is_judged_by_its_own_training(places, tiny_model_dir, tmp_path):
    """``RUN/fixed_epochs`` with unseen rows of a file: the control's epochs, rows and history."""
    lines = (places / "train.jsonl").read_text().splitlines()
    validation, train, leaky = tmp_path / "v.jsonl", tmp_path / "t.jsonl", tmp_path / "l.jsonl"
    validation.write_text("\n".join(lines[:10]) + "\n")
    train.write_text("\n".join(lines[10:]) + "\n")
    unseen = (places / "heldout.jsonl").read_text().splitlines()
    leaky.write_text("\n".join([*unseen, *lines[10:14]]) + "\n")
    run = fit(
        str(tiny_model_dir),
        str(train),
        out=tmp_path / "run",
        recipe="full",
        settings=[
            *SETTINGS,
            f"data.validation={validation}",
            "data.test_share=0",
            "train.learning_rate=1e-3",
            "train.max_epochs=1",
            "control.fixed_epochs=2",
            "regularizers.weight_decay.rate=1",
            "eval.per_epoch=1",
            "eval.num_samples=0",
        ],
    ).run
    options = {"settings": SETTINGS, "probes": ["generalization_gap"], "generate": False}
    found = diagnose(run.path("fixed_epochs"), heldout=leaky, **options)
    assert found.facts.epochs == 2
    assert found.facts.weight_decay == 0
    assert found.facts.regularizers == ()
    assert [point.epoch for point in found.facts.history] == [0, 1, 2]
    assert found.facts.leak_share == 4 / len([*unseen, *lines[10:14]])
    assert "4 held-out rows stand in the training data" in found.warnings[0]
    last = diagnose(run.last, heldout=leaky, **options)
    assert last.facts.epochs == 1
    assert last.facts.weight_decay == 1.0
    assert value(last, "generalization_gap_best") < value(found, "generalization_gap_best")
    with pytest.raises(UserError, match="no sealed test part"):
        diagnose(run.folder)


def test_a_damaged_model_is_refused(places, tmp_path):
    copy = tmp_path / "model"
    copy.mkdir()
    for file in (places / "out" / "checkpoint-100").iterdir():
        if file.is_file() and file.suffix == ".json":
            (copy / file.name).write_bytes(file.read_bytes())
    whole = (places / "out" / "checkpoint-100" / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged or cut short"):
        diagnose(copy, train=places / "train.jsonl", heldout=places / "heldout.jsonl")


def test_a_fault_without_a_log_says_what_would_tell(places, tiny_model_dir, tmp_path):
    last = places / "out" / "checkpoint-300"
    shutil.copytree(last, tmp_path / "weights", ignore=shutil.ignore_patterns("*.bin", "trainer*"))
    told = {
        folder: [text for text in found.warnings if "no log of the training was found" in text]
        for folder in (tmp_path / "weights", last)
        for found in [
            diagnose(
                folder,
                train=places / "train.jsonl",
                heldout=places / "heldout.jsonl",
                base=str(tiny_model_dir),
                settings=SETTINGS,
                generate=False,
                probes=("heldout_loss", "memorization"),
            )
        ]
    }
    assert told[last] == []
    assert len(told[tmp_path / "weights"]) == 1


def test_a_base_with_another_tokenizer_is_no_control(places):
    result = diagnose(
        places / "out",
        train=places / "train.jsonl",
        heldout=places / "heldout.jsonl",
        base="package:heldout",
        settings=SETTINGS,
        generate=False,
        probes=("heldout_loss", "memorization"),
    )
    assert any("tokenizer splits the rows otherwise" in text for text in result.warnings)
    assert all("base" not in getattr(m, "contrasts", {}) for m in result.measurements)
    assert value(result, "recital_best", "heldout") > 0.5
