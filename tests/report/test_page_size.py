"""A page carries its chart library and stays small; many runs side by side stay quick."""

import dataclasses
import hashlib
import json
import re
import resource
import shutil
import subprocess
import sys
from importlib import resources

import made_up_check
import made_up_run
import pytest

from heldout.core.run import Run
from heldout.report.check_page import render_check
from heldout.report.page import render_report

MOST_BYTES = 400_000
ASSETS = resources.files("heldout.assets") / "chart_js"


def test_the_chart_library_is_the_file_that_its_page_names():
    source = (ASSETS / "chart.umd.min.js").read_bytes()
    told = (ASSETS / "README.md").read_text(encoding="utf-8")
    assert f"`{hashlib.sha256(source).hexdigest()}`" in told
    version = re.search(r"Chart\.js v([\d.]+)", source.decode())[1]
    assert f"| version | {version} |" in told
    assert "MIT License" in (ASSETS / "LICENSE.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("whole_page")
def test_pages_are_at_most_400_kilobytes(shared_run, tmp_path):
    for page in (
        render_report([shared_run]),
        render_check(made_up_check.made_up_check(tmp_path)),
        render_report([shared_run] * 50),
    ):
        assert 250_000 < len(page.encode()) <= MOST_BYTES


@pytest.mark.usefixtures("whole_page")
def test_a_check_of_long_rows_stays_small(tmp_path):
    found = made_up_check.made_up_check(tmp_path)
    long = [
        dataclasses.replace(
            pair,
            first=dataclasses.replace(pair.first, text="All of a long row. " * 200),
            second=dataclasses.replace(pair.second, text="All of a long row. " * 200),
        )
        for pair in found.leaks * 20
    ]
    suspects = [dataclasses.replace(found.suspects[0], text="odd " * 1000)] * 40
    places = {kind: [(n / 4000, n / 4000) for n in range(4000)] for kind in found.leak_map}
    found = dataclasses.replace(
        found, leaks=long, duplicates=long, suspects=suspects, leak_map=places
    )
    assert len(render_check(found).encode()) <= MOST_BYTES


@pytest.mark.usefixtures("whole_page")
def test_a_run_of_long_texts_and_many_evaluations_stays_small(tmp_path):
    run = made_up_run.made_up_run(tmp_path / "run")
    samples = run.read_json("samples.json")
    for sample in samples:
        for name in ("prompt", "reference", "base", "best", "last"):
            sample[name] = f"{name} begins. {'又长又长的答案。' * 3000} {name} ends."
    run.write_json("samples.json", samples * 20)
    last = run.history()[-1] | {"is_best": False}
    entries = [
        last | {"step": 10 * place, "epoch": place / 50, "validation_nll": 2 + 1 / (place + 1)}
        for place in range(5000)
    ]
    run.path("history.jsonl").write_text("\n".join(map(json.dumps, entries)) + "\n")
    page = render_report([run])
    assert len(page.encode()) <= MOST_BYTES
    # What comes right before the answer, and how answers begin.
    for words in ("prompt ends.", "reference begins.", "best begins."):
        assert words in page
    for words in ("prompt begins.", "reference ends.", "best ends."):
        assert words not in page


@pytest.mark.slow
@pytest.mark.usefixtures("whole_page")
def test_fifty_runs_side_by_side_take_under_five_seconds(tmp_path):
    """As a command, imports and all; in seconds of CPU, as other work may go on beside it."""
    first = made_up_run.made_up_run(tmp_path / "2026-11-30-00-factbook-smollm2")
    runs = [first]
    for place in range(1, 50):
        other = Run(shutil.copytree(first.folder, tmp_path / f"2026-11-30-{place:02}-factbook"))
        toml = other.path("recipe.toml").read_text()
        other.write_text("recipe.toml", toml.replace("lora_rank = 16", f"lora_rank = {place}"))
        runs.append(other)
    page = tmp_path / "all.html"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "heldout", "report", *(str(each.folder) for each in runs)]
    subprocess.run([*command, "--out", str(page)], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
    assert page.stat().st_size <= MOST_BYTES
