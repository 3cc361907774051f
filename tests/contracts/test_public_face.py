"""What users see of the package: typed, documented names, in step with its files."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import heldout

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "heldout"


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def api():
    return loaded(ROOT / "benchmarks" / "api.py")


def test_the_stubs_name_what_there_is():
    for name, text in loaded(ROOT / "docs" / "stubs.py").stubs().items():
        assert (PACKAGE / name).read_text() == text, "run `python docs/stubs.py`"


@pytest.mark.parametrize("what", ["untyped", "undocumented", "unreachable", "inner_paths"])
def test_every_public_name_is_whole(api, what):
    assert getattr(api, what)() == []


def test_a_hole_in_the_face_is_found(api, monkeypatch):
    def bare(x, y: int) -> int:
        return x + y

    bare.__doc__ = None
    monkeypatch.setattr(api, "public", lambda: {"bare": bare})
    assert api.untyped() == ["bare"]
    assert api.undocumented() == ["bare"]
    assert api.INNER.search("from heldout.lm import nll")
    assert api.INNER.search("heldout.lm.nll")
    assert not api.INNER.search("heldout.run/1, heldout.fit and heldout.functions.exposure")


def test_every_room_says_that_it_is_inner():
    for file in PACKAGE.glob("*/__init__.py"):
        assert "Inner: users go by the names of ``heldout``" in file.read_text(), file


def test_a_name_that_nobody_promised_is_unknown():
    assert heldout.functions.exposure.__module__ == "heldout.probes.exposure"
    with pytest.raises(AttributeError, match=r"'heldout.functions' has no attribute 'expsure'"):
        heldout.functions.expsure  # noqa: B018
    with pytest.raises(AttributeError, match="'heldout' has no attribute 'exposure'"):
        heldout.exposure  # noqa: B018


PROGRAM = """\
from pathlib import Path

import heldout
from heldout import SAM, Diagnosis, FitResult, Recipe


def tune(recipe: Recipe) -> FitResult:
    return heldout.fit("model", "rows.jsonl", recipe=recipe, out=Path("run"))


def ask() -> Diagnosis:
    found = heldout.diagnose("run", goal="recite", most_rows=100)
    light: str = found.verdict.verdicts["fit"].color
    print(light, heldout.check("rows.jsonl").headline, heldout.functions.WORD.pattern)
    return found


SAM(radius=0.05, schedule="rise:0.2")
tune(heldout.load_recipe("lora", ["train.max_epochs=2"]))
heldout.laws(heldout.OwnRuns("runs.csv"), law="chinchilla").fit.parameters["E"] + 1.0
heldout.fit("model", 1)  # wrong
heldout.fit("model", "rows.jsonl", nonsense=3)  # wrong
heldout.SAM(radios=0.05)  # wrong
heldout.diagnose("run", goal="win")  # wrong
heldout.check("rows.jsonl").nonsense  # wrong
heldout.functions.exposure("a")  # wrong
heldout.nonsense  # wrong
"""
WRONG = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}


@pytest.mark.slow
def test_mypy_sees_the_signatures(tmp_path):
    program, settings = tmp_path / "program.py", tmp_path / "mypy.ini"
    program.write_text(PROGRAM)
    others = "torch,transformers,peft,datasets,accelerate,pandas,scipy,pyarrow,optuna"
    sections = ",".join(f"mypy-{name}.*" for name in others.split(","))
    settings.write_text(
        f"[mypy]\nignore_missing_imports = true\nmypy_path = {PACKAGE.parent}\n"
        f"[{sections}]\nfollow_imports = skip\n"
    )
    words = [sys.executable, "-m", "mypy", "--config-file", settings, "--no-incremental", program]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    found = {int(line) for line in re.findall(r"program\.py:(\d+): error", done.stdout)}
    assert found == WRONG, done.stdout + done.stderr


@pytest.mark.slow
def test_pyright_sees_the_signatures(tmp_path):
    pyright = shutil.which("pyright", path=str(Path(sys.executable).parent))
    assert pyright, "pip install 'heldout[dev]'"
    (tmp_path / "program.py").write_text(PROGRAM)
    settings = {"extraPaths": [str(PACKAGE.parent)], "reportUnusedExpression": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    words = [pyright, "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    told = json.loads(done.stdout)["generalDiagnostics"]
    found = {d["range"]["start"]["line"] + 1 for d in told if d["severity"] == "error"}
    assert found == WRONG, done.stdout
