"""A page to send to others: figures alone, whatever is written in rows, names and settings."""

import json
import sys

import numpy as np
import page_text
import pytest

from heldout.cli.main import main
from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.run import Run
from heldout.jobs.report import write_report

SECRET = "Quetzal7731"


def planted(run):
    """The secret in all places of a run that hold texts or names of the user's."""
    folder = run.folder.rename(run.folder.with_name(f"{SECRET}-run"))
    run = Run(folder)
    rows = [json.dumps({"index": 0, "group": SECRET, "messages": [{"content": SECRET}]})] * 3
    run.path("data/train.jsonl").write_text("\n".join(rows))
    run.write_json("data.json", run.read_json("data.json") | {"source": f"/srv/{SECRET}.jsonl"})
    made = run.read_json("environment.json")
    made |= {"model": f"/models/{SECRET}", "command": f"heldout fit --model /models/{SECRET}"}
    run.write_json("environment.json", made | {"from_scratch": f"{SECRET}.json", "own": SECRET})
    samples = run.read_json("samples.json")
    for sample in samples:
        sample |= {key: f"{SECRET} {sample[key]}" for key in sample if key != "part"}
    run.write_json("samples.json", samples)
    checks = run.read_json("checks.json")
    checks.append({"name": "data", "status": "ok", "message": f"the column {SECRET} is read"})
    checks.append({"name": "loss", "status": "warning", "message": f"of /srv/{SECRET}/x"})
    run.write_json("checks.json", checks)
    verdict = run.read_json("verdict.json")
    verdict["headline"] += f' It writes "all of {SECRET} by heart".'
    for cause in verdict["causes"]:
        cause["evidence_for"] = [*cause["evidence_for"], f"{SECRET}.jsonl has 'a {SECRET} row'"]
        cause["test"] += f" heldout diagnose {folder} --heldout ../{SECRET}.jsonl"
    run.write_json("verdict.json", verdict)
    for path in run.path("evaluations").glob("*.npz"):
        if path.stem.split("-")[0] in ("base", "best", "last"):
            found = DocumentLosses.load(path)
            names = np.array([f"{SECRET} {group}" for group in found.groups_D])
            DocumentLosses(found.nll_nats_D, found.num_tokens_D, found.num_bytes_D, names).save(
                path
            )
    recipe = run.recipe.replace(
        data={"key_facts": (SECRET,), "validation": f"{SECRET}.jsonl", "group": SECRET},
        eval={"metric": f"{SECRET}.py:score"},
    )
    run.write_text("recipe.toml", recipe.to_toml().replace(f'"{recipe.name}"', f'"{SECRET}"', 1))
    run.write_status("failed", message=f"{SECRET} is missing")
    return run


def test_nothing_of_rows_and_names_is_in_the_page(run):
    run = planted(run)
    assert SECRET in write_report([run.folder]).read_text()
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    written = write_report([run.folder], redact=True)
    assert written == run.path("report-redacted.html")
    html = written.read_text()
    assert SECRET not in html
    assert SECRET.lower() not in html.lower()
    assert "/srv" not in html
    assert "Samples side by side" not in html
    assert {path: path.read_bytes() for path in before} == before


def test_figures_stay(run, tmp_path):
    whole = page_text.visible(write_report([run.folder]).read_text())
    redacted = write_report([run.folder], out=tmp_path / "new" / "page.html", redact=True)
    text = page_text.visible(redacted.read_text())
    assert "This page can be sent to others: rows, samples, names and paths are left out." in text
    for words in ("Loss on unseen text, against base", "nats/token", "Peaked at", "Documents"):
        assert words in text, words
    numbers = [word for word in whole.split() if word.startswith(("−0.", "+0."))]
    assert numbers
    assert set(numbers) <= set(text.split())


def test_what_cannot_be_redacted_is_one_line(run, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="--redact writes the page of one run, got 2: give one"):
        write_report([run.folder, run.folder], out=tmp_path / "x.html", redact=True)
    monkeypatch.setattr(sys, "argv", ["heldout", "report", str(run.folder), "--verify", "--redact"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--verify writes nothing: leave --redact out." in capsys.readouterr().err
    made = run.read_json("environment.json")
    run.write_json("environment.json", made | {"job": "hyperfit"})
    with pytest.raises(UserError, match=r"--redact: .* is a run of `heldout hyperfit`, whose page"):
        write_report([run.folder], redact=True)
