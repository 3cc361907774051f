"""Benchmark records: what their file names say, and one record of each benchmark in the tree."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RECORDS = sorted((BENCHMARKS / "results").glob("*.json"))
NAME = re.compile(
    r"(?P<benchmark>.+)_(cpu-\d+-cores|gpu-[a-z0-9-]+)_(?P<date>\d{4}-\d\d-\d\d)(-\d+)?"
)


@pytest.fixture
def record(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("record", BENCHMARKS / "record.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


@pytest.mark.parametrize(
    ("gpu", "cores", "kind"),
    [
        ("", 2, "cpu-2-cores"),
        ("NVIDIA H200", 16, "gpu-h200"),
        ("NVIDIA GeForce RTX 4090", 8, "gpu-rtx-4090"),
        ("NVIDIA A100-SXM4-80GB", 8, "gpu-a100-sxm4-80gb"),
    ],
)
def test_the_kind_of_hardware_has_no_brand(record, gpu, cores, kind):
    assert record.hardware_kind(gpu, cores) == kind


@pytest.mark.parametrize("gpu", ["", "NVIDIA H200"])
def test_a_record_is_named_after_the_hardware_and_never_overwritten(record, monkeypatch, gpu):
    monkeypatch.setattr(record, "gpu_used", lambda: gpu)
    monkeypatch.setattr(record, "num_cores", lambda: 2)
    paths = [
        record.write_record("speed", {"seconds": seconds}, seeds=[0], data_sha256="")
        for seconds in (1.0, 2.0)
    ]
    kind = "gpu-h200" if gpu else "cpu-2-cores"
    names = [NAME.fullmatch(path.stem) for path in paths]
    assert [path.stem.split("_")[1] for path in paths] == [kind, kind]
    assert [name["benchmark"] for name in names] == ["speed", "speed"]
    assert [json.loads(path.read_text())["figures"]["seconds"] for path in paths] == [1.0, 2.0]
    assert json.loads(paths[0].read_text())["hardware"].endswith(gpu)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_is_named_after_what_it_holds(path):
    held, name = json.loads(path.read_text(encoding="utf-8")), NAME.fullmatch(path.stem)
    assert (held["benchmark"], held["date"][:10]) == (name["benchmark"], name["date"])


def test_the_tree_holds_one_record_of_each_benchmark():
    names = [NAME.fullmatch(path.stem)["benchmark"] for path in RECORDS]
    assert sorted(set(names)) == names
