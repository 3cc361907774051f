"""What lies beside an exported recipe: the rows of the run, and nothing that is sealed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import heldout
from heldout.core.errors import UserError
from heldout.core.recipe import load_recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.jobs.exporting.export_recipe import TRAINERS, export_recipe, write_export
from heldout.lm.source import find_source

ROWS = {
    "text": ({"role": "text", "content": "A text."},),
    "completion": (
        {"role": "prompt", "content": "How?\n"},
        {"role": "completion", "content": "So."},
    ),
    "conversation": (
        {"role": "user", "content": "How?"},
        {"role": "assistant", "content": "So."},
    ),
}


def run_with(tmp_path, *kinds, model="some/model", **environment):
    run = Run.create(tmp_path / "run", load_recipe("full"))
    result = {"best_step": 12, "best_epoch": 2.5, "learning_rate": 7e-4, "weight_decay": 3.0}
    run.write_json("result.json", result)
    run.write_json("environment.json", {"model": model, **environment})
    for part in ("train", "validation", "test"):
        rows = [Row(i, ROWS[kind], f"group {i}", part) for i, kind in enumerate(kinds)]
        run.write_rows(part, rows)
    return run


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("kind", ROWS)
def test_the_split_goes_along_and_the_test_rows_stay_sealed(tmp_path, trainer, kind):
    run = run_with(tmp_path, kind, kind)
    run.best.symlink_to(find_source("package:heldout").path)  # for its end of text
    files = write_export(run.folder, trainer, tmp_path / "out")
    assert all(file.is_file() for file in files)
    validation = "valid.jsonl" if trainer == "mlx" else "validation.jsonl"
    script = "train.py" if trainer in ("trl", "unsloth") else "train.yaml"
    more = {"dataset_info.json"} if trainer == "llama-factory" else set()
    assert {file.name for file in files} == {script, "train.jsonl", validation} | more
    (row, _) = lines(tmp_path / "out" / "train.jsonl")
    end = "<|endoftext|>" if trainer == "llama-factory" else ""
    assert (
        row
        == {
            "text": {"text": "A text."},
            "completion": {"prompt": "How?\n", "completion": f"So.{end}"},
            "conversation": {"messages": list(ROWS["conversation"])},
        }[kind]
    )
    assert not run.test_openings


def test_dataset_info_names_the_columns(tmp_path):
    run = run_with(tmp_path, "conversation")
    write_export(run.folder, "llama-factory", tmp_path / "out")
    listed = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert listed["validation"]["file_name"] == "validation.jsonl"
    assert listed["train"]["formatting"] == "sharegpt"  # openai writes a system prompt of its own
    assert listed["train"]["tags"]["assistant_tag"] == "assistant"


def test_mlx_counts_its_steps_by_the_rows(tmp_path):
    run = run_with(tmp_path, *["text"] * 40)  # 5 steps an epoch
    table = yaml.safe_load(export_recipe(run.folder, "mlx"))
    assert table["iters"] == round(2.5 * 5)
    assert table["optimizer_config"]["adamw"]["bias_correction"] is True
    assert table["mask_prompt"] is False


def test_a_rate_that_nobody_found_stops_the_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="Set LEARNING_RATE"):
        exec(compile(export_recipe("lora", "trl"), "trl", "exec"), {})
    for trainer in ("axolotl", "llama-factory", "mlx"):
        assert yaml.safe_load(export_recipe("lora", trainer))["learning_rate"] == "LEARNING_RATE"


def test_a_model_of_a_package_is_a_folder_that_others_can_load(tmp_path):
    run = run_with(tmp_path, "text", model="package:heldout")
    path = yaml.safe_load(export_recipe(run.folder, "axolotl"))["base_model"]
    assert (Path(path) / "config.json").is_file()


def test_a_beginning_with_new_weights_is_told(tmp_path):
    run = run_with(tmp_path, "text", from_scratch="config.json")
    text = export_recipe(run.folder, "trl")
    assert "the run began with new weights" in text
    assert "'MODEL'" in text


@pytest.mark.parametrize("trainer", TRAINERS)
def test_answers_that_are_not_trained_on_are_told(tmp_path, trainer):
    run = run_with(tmp_path, "conversation", "conversation")
    assert "leaves untrained" not in export_recipe(run.folder, trainer)
    answer = {"role": "assistant", "content": "No.", "train": False}
    rows = [*run.read_rows("train")]
    run.write_rows("train", [rows[0], replace(rows[1], messages=(*rows[1].messages, answer))])
    assert "rows: 1 hold answers that heldout leaves untrained" in export_recipe(
        run.folder, trainer
    )


def test_what_cannot_be_written_is_said_in_one_line(tmp_path):
    run = run_with(tmp_path, "text", "conversation")
    with pytest.raises(UserError, match="rows of several kinds"):
        export_recipe(run.folder, "trl")
    run.write_rows("train", [Row(0, ROWS["text"], "a")])
    with pytest.raises(UserError, match="leave --rows out"):
        export_recipe(run.folder, "trl", "text")
    with pytest.raises(UserError, match="--rows must be one of text, completion, conversation"):
        export_recipe("lora", "trl", "chat")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        write_export("lora", "trl", tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["notes.txt"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # not ours
@pytest.mark.parametrize("kind", ROWS)
def test_trl_s_first_step_is_ours(tmp_path, kind, monkeypatch):
    """The losses of four rows after one step; with the user's turns trained they are others."""
    monkeypatch.chdir(tmp_path)
    run = Run.open(one_step(tmp_path, kind))
    write_export(run.folder, "trl", tmp_path / "out")
    script = (tmp_path / "out" / "train.py").read_text(encoding="utf-8")
    losses = [loss_of(run, str(run.last)), loss_of(run, trained(tmp_path, script, "as-written"))]
    assert abs(losses[1] - losses[0]) < 1e-5
    if kind == "conversation":
        all_turns = script.replace("    assistant_only_loss=True,\n", "")
        assert abs(loss_of(run, trained(tmp_path, all_turns, "all")) - losses[0]) > 1e-3


def one_step(tmp_path, kind):
    for part, first in (("train", 0), ("validation", 50), ("test", 70)):
        rows = [
            {
                "text": {"text": f"What is {i}?\nIt is {i}, of course."},
                "completion": {"prompt": f"What is {i}?\n", "completion": f"It is {i}, of course."},
                "conversation": {
                    "messages": [
                        {"role": "user", "content": f"What is {i}?"},
                        {"role": "assistant", "content": f"It is {i}, of course."},
                    ]
                },
            }[kind]
            for i in range(first, first + 8)
        ]
        path = tmp_path / f"{part}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    heldout.fit(
        "package:heldout",
        str(tmp_path / "train.jsonl"),
        out=tmp_path / "run",
        recipe="lora",
        settings=[
            *(f"data.{part}={tmp_path / part}.jsonl" for part in ("validation", "test")),
            *("train.learning_rate=1e-3", "train.max_epochs=1", "train.warmup_steps=0"),
            *("train.micro_batch_size=4", "train.precision=float32", "model.method=full"),
            *("eval.num_samples=0", "regularizers.dropout=false"),
            "regularizers.early_stopping=false",
        ],
    )
    return tmp_path / "run"


def trained(tmp_path, script, name):
    out = tmp_path / name
    for part in ("train", "validation"):
        script = script.replace(f"'{part}.jsonl'", repr(str(tmp_path / "out" / f"{part}.jsonl")))
    exec(compile(script.replace("output_dir='out'", f"output_dir={str(out)!r}"), "trl", "exec"), {})
    return str(out)


def loss_of(run, model):
    from heldout.lm.load import load_model
    from heldout.lm.nll import document_losses

    loaded = load_model(model, device="cpu")
    rows = list(run.read_rows("validation"))
    losses = document_losses(loaded.model, rows, loaded.tokenizer, max_length=512, batch_size=4)
    return losses.nats_per_token
