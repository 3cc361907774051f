"""A package of others that brings one of each kind of plug-in, built and installed by pip."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "my-ideas"
version = "1"

[project.entry-points."heldout.plugins"]
regularizers = "my_ideas.regularizers"
augment = "my_ideas.augment"
probes = "my_ideas.probes"
gatherers = "my_ideas.gatherers"
scaling = "my_ideas.laws"

[tool.setuptools.packages.find]
where = ["src"]
"""
REGULARIZER = '''\
"""Squared logits: a penalty on large logits."""

from dataclasses import dataclass

import heldout

SOURCE = "an example"
COST = "none"


@dataclass(frozen=True)
class SquaredLogits(heldout.Regularizer):
    """Adds ``rate`` times the mean square of a token's logits."""

    rate: float = 1e-3

    def token_loss(self, logits_NV, targets_N):
        return self.rate * logits_NV.square().mean(-1)
'''
USES = """\
import json, sys
import heldout
from my_ideas.regularizers.squared_logits import SquaredLogits

listed = {entry.name: entry.kind for entry in heldout.list_entries()}
names = ("squared_logits", "lower_case", "top_five", "unique_only")
rows = [{"text": f"Row {n} is written by hand, and says {n * 7919}."} for n in range(80)]
settings = ["augment.lower_case.rate=0.5", "train.learning_rate=1e-3", "data.max_length=32"]
plan = heldout.dry_run(sys.argv[1], rows, recipe="full", settings=settings,
                       regularizers=[SquaredLogits(rate=0.1)])
try:
    heldout.dry_run(sys.argv[1], rows, settings=["regularizers.squared_logits.raet=1"])
except heldout.UserError as error:
    refusal = str(error)
print(json.dumps({"kinds": [listed.get(name) for name in names], "steps": plan.max_steps,
                  "cost": plan.step_cost, "refusal": refusal}))
"""


@pytest.mark.slow
def test_what_a_package_brings_is_used_like_ours(tiny_model_dir, tmp_path):
    package, examples = tmp_path / "src" / "my_ideas", ROOT / "docs" / "docs_src"
    for name in ("regularizers", "augment", "laws"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "regularizers" / "squared_logits.py").write_text(REGULARIZER)
    shutil.copy(examples / "lower_case.py", package / "augment")
    shutil.copy(examples / "unique_only.py", package / "laws")
    for name in ("probes", "gatherers"):
        shutil.copytree(examples / "a_probe" / name, package / name)
        (package / name / "__init__.py").touch()
    gatherer = package / "gatherers" / "top_five.py"
    gatherer.write_text(gatherer.read_text().replace("a_probe.", "my_ideas."))
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    target = tmp_path / "installed"
    subprocess.run([*pip, "--no-index", "--target", target, tmp_path], check=True)
    done = subprocess.run(
        [sys.executable, "-c", USES, str(tiny_model_dir)],
        env={"PATH": "", "PYTHONPATH": f"{target}:{ROOT / 'src'}", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kinds"] == ["regularizer", "augmentation", "probe", "law"]
    assert told["steps"] > 0
    assert "did you mean 'rate'" in told["refusal"]
