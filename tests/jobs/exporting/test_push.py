"""What `heldout push` would upload: what others need, and nothing of rows or of this machine."""

import json
import re
import shutil
import sys
from importlib import resources
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from jsonschema import Draft202012Validator
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

import finished_run
import heldout
from heldout.cli.main import main
from heldout.core.errors import UserError
from heldout.core.run import Run
from heldout.report.card import model_card

BASE = "org/base-model"


@pytest.fixture(scope="module", params=["full", "lora"])
def run(request, tmp_path_factory):
    """With files beside the weights that a trainer leaves there, rows in each of them."""
    found = finished_run.finished_run(
        tmp_path_factory.mktemp("runs") / request.param, method=request.param
    )
    told = json.dumps({**finished_run.ROWS, "made_up_state": [0.1]})
    for name in ("trainer_state.json", "optimizer.pt", "notes.txt", "data/train.jsonl"):
        path = found.best / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(told)
    (found.best / "linked.safetensors").symlink_to(found.path("data/train.jsonl"))
    settings = json.loads((found.best / "tokenizer_config.json").read_text())
    settings |= {"name_or_path": str(found.folder), "vocab_file": f"{found.folder}/vocab.json"}
    (found.best / "tokenizer_config.json").write_text(json.dumps(settings))
    return found


@pytest.fixture(scope="module")
def pushed(run):
    return heldout.dry_run_push(run, "org/my-model", with_report=True, base=BASE)


def test_only_what_others_need_is_in_it(run, pushed):
    names = {file.name for file in pushed.files}
    weights = {"full": {"model.safetensors", "config.json", "generation_config.json"}}
    weights["lora"] = {"adapter_model.safetensors", "adapter_config.json"}
    both = {"README.md", "report.html", "tokenizer.json", "tokenizer_config.json"}
    assert names - {"chat_template.jinja"} == weights[run.folder.name] | both
    assert set(pushed.left_out) == {
        *("trainer_state.json", "optimizer.pt", "notes.txt"),
        *("data/train.jsonl", "linked.safetensors"),
    }


def test_no_row_no_text_and_no_path_is_in_any_file(run, pushed):
    hidden = [*finished_run.ROWS.values(), str(run.folder), str(Path(heldout.__file__).parent)]
    hidden += ["somebody", "rows.jsonl", "made_up_state"]
    for file in pushed.files:
        whole = file.read()
        for text in hidden:
            assert text.encode() not in whole, (file.name, text)
    for file in pushed.files:
        if file.name.endswith(".safetensors"):
            with safe_open(file.content, "pt") as weights:
                assert (weights.metadata() or {}).items() <= {"format": "pt"}.items()


def test_what_goes_there_can_be_loaded(run, pushed, tmp_path):
    for file in pushed.files:
        (tmp_path / file.name).write_bytes(file.read())
    assert AutoTokenizer.from_pretrained(tmp_path)("a").input_ids
    if run.folder.name == "lora":
        about = json.loads((tmp_path / "adapter_config.json").read_text())
        assert about["base_model_name_or_path"] == BASE
        assert about["r"] == 2
    else:
        model = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert model.config.model_type == "llama"


def test_the_card_is_of_the_repository(pushed):
    read = ModelCard(pushed.card)
    assert read.data.to_dict()["base_model"] == BASE
    assert "# my-model" in read.text
    assert 'from_pretrained("org/my-model")' in read.text


def test_the_lines_of_code_in_the_card_write_something(run, capsys):
    card = model_card(run, place=str(run.best))
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    exec(code, {})
    (answer,) = capsys.readouterr().out.splitlines()[-1:]
    assert "assistant" in answer


def test_the_run_stays_as_it_was(run):
    def whole():
        return {path: path.read_bytes() for path in sorted(run.folder.rglob("*")) if path.is_file()}

    before = whole()
    heldout.dry_run_push(run, "org/my-model", with_report=True, base=BASE)
    assert whole() == before


def ended(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["heldout", "push", *map(str, words)])
    with pytest.raises(SystemExit) as found:
        main()
    said = capsys.readouterr()
    return found.value.code, said.out, said.err.strip()


def test_the_command_lists_files_with_sizes_and_the_head_of_the_card(run, monkeypatch, capsys):
    words = [run.folder, "org/my-model", "--dry-run", "--base", BASE]
    code, out, _ = ended(monkeypatch, capsys, *words)
    assert not code
    assert "Dry run, nothing was uploaded. To org/my-model (private) would go:" in out
    assert "MB" in out or "kB" in out
    assert "tokenizer_config.json" in out
    assert "  # my-model" in out
    assert "report.html" not in out
    code, out, _ = ended(monkeypatch, capsys, *words, "--public", "--json")
    entry = json.loads(out)
    schema = json.loads(
        (resources.files("heldout.core") / "schemas" / "push.json").read_text(encoding="utf-8")
    )
    Draft202012Validator(schema).validate(entry)
    assert (entry["private"], entry["url"], entry["card_check"]) == (False, "", "skipped")
    assert entry["num_bytes"] == sum(file["num_bytes"] for file in entry["files"])


def test_an_upload_offline_is_refused(run, monkeypatch, capsys):
    code, out, error = ended(monkeypatch, capsys, run.folder, "org/my-model", "--base", BASE)
    assert (code, out) == (2, "")
    assert error.startswith("heldout: HF_HUB_OFFLINE is set, so nothing can be uploaded")
    assert "\n" not in error


@pytest.mark.parametrize(
    "name",
    ["my-model", "org/", "/my-model", "org/my model", "a/b/c", "org/x..y", "../up", "o/x.git"],
)
def test_a_bad_name_is_refused(run, name):
    with pytest.raises(UserError, match=r"ORG/NAME must be .* Nothing was uploaded\.$"):
        heldout.push(run, name, base=BASE)


def test_an_adapter_of_a_model_that_lies_here_needs_its_base(run):
    if run.folder.name == "full":
        assert heldout.dry_run_push(run, "org/my-model").base == ""
    else:
        with pytest.raises(UserError, match="nothing without its base: name it with --base ORG/"):
            heldout.dry_run_push(run, "org/my-model")
        with pytest.raises(UserError, match="--base must be a user or organization"):
            heldout.dry_run_push(run, "org/my-model", base="mine")


def test_a_run_without_a_model_or_that_goes_on_is_refused(tmp_path):
    run = Run.create(tmp_path / "run", heldout.load_recipe("lora"))
    with pytest.raises(UserError, match="has no best/, so there is no model to upload"):
        heldout.dry_run_push(run, "org/my-model")
    run.best.mkdir()
    with pytest.raises(UserError, match=r"has not ended \(started\)"):
        heldout.dry_run_push(run, "org/my-model")


@pytest.mark.parametrize("written", ["[]", "{"])
def test_a_configuration_that_is_no_object_is_refused(run, tmp_path, written):
    copy = Run(shutil.copytree(run.folder, tmp_path / "copy"))
    copy.path("best/tokenizer_config.json").write_text(written)
    with pytest.raises(UserError, match=r"tokenizer_config\.json holds no JSON object"):
        heldout.dry_run_push(copy, "org/my-model", base=BASE)
