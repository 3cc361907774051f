"""The probe of docs/write_a_probe.md, with evidence of its own, as a package of others has it."""

import json
from pathlib import Path

import numpy as np
import pytest

from heldout.core.discovery import entries_of
from heldout.core.measurement import NotMeasured
from heldout.core.probe import Evidence
from heldout.jobs.diagnosing.diagnose import diagnose

FOLDER = Path(__file__).parents[2] / "docs" / "docs_src"


@pytest.fixture
def announced(tmp_path, monkeypatch):
    """As if installed: two folders on the path, one of them with the package's entry points."""
    about = tmp_path / "installed" / "a_probe-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: a_probe\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[heldout.plugins]\nprobes = a_probe.probes\ngatherers = a_probe.gatherers\n"
    )
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(about.parent))
    entries_of.cache_clear()
    yield
    entries_of.cache_clear()


def test_known_answer(announced):
    from a_probe.probes.top_five import Hits, TopFive

    groups, tokens = np.arange(20).astype(str), np.full(20, 10.0)
    best, base = (Hits(np.full(20, hits), tokens, groups) for hits in (6.0, 4.0))
    (found,) = TopFive().measure(Evidence({}).adding(best, "best").adding(base, "base"))
    assert found.value == pytest.approx(0.6)
    assert found.contrasts["base"].difference == pytest.approx(0.2)
    assert isinstance(TopFive().measure(Evidence({}))[0], NotMeasured)


def test_diagnose_gathers_what_it_needs(announced, tiny_model_dir, english_text, tmp_path):
    texts = [p for p in english_text.split("\n\n") if len(p) > 60][:32]
    for name, part in (("train", texts[:16]), ("heldout", texts[16:])):
        lines = [json.dumps({"text": text}) for text in part]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    result = diagnose(
        tiny_model_dir,
        train=tmp_path / "train.jsonl",
        heldout=tmp_path / "heldout.jsonl",
        base=str(tiny_model_dir),
        probes=["top_five"],
        generate=False,
        settings=["data.max_length=64"],
        out=tmp_path / "out",
    )
    (found,) = result.measurements
    assert found.name == "top_five_best"
    assert 0 <= found.value < 0.5, "a model that was not trained"
    assert found.contrasts["base"].difference == 0
    assert "top_five_best" in (tmp_path / "out" / "diagnosis.json").read_text()
