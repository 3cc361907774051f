"""Run folders that are damaged, moved, or resumed after something that they rest on has changed."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from faults_materials import Materials, save_model, texts
from faults_processes import Place, in_a_process

Change = Callable[[Path], None]
DEEP = "[" * 100_000 + "]" * 100_000


def holding(name: str, text: str) -> Change:
    def change(run: Path) -> None:
        (run / name).write_text(text)

    return change


def lacking(name: str) -> Change:
    def change(run: Path) -> None:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def cut(name: str) -> Change:
    def change(run: Path) -> None:
        path = run / name
        path.write_bytes(path.read_bytes()[: max(1, path.stat().st_size // 2)])

    return change


def linked(name: str, to: str) -> Change:
    def change(run: Path) -> None:
        path = run / name
        path.unlink()
        path.symlink_to(to)

    return change


def with_values(name: str, **values: object) -> Change:
    def change(run: Path) -> None:
        path = run / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


DAMAGED: dict[str, tuple[str, Change]] = {
    f"{name} {how}": (name, change)
    for name in ("environment.json", "data.json", "result.json", "status.json", "verdict.json")
    for how, change in (
        ("is a list", holding(name, "[]")),
        ("is cut", cut(name)),
        ("is deep", holding(name, DEEP)),
        ("is missing", lacking(name)),
    )
} | {
    "measurements.json is a number": ("measurements.json", holding("measurements.json", "7")),
    "measurements.json is cut": ("measurements.json", cut("measurements.json")),
    "samples.json is an object": ("samples.json", holding("samples.json", '{"a": 1}')),
    "recitals.json is a list": ("recitals.json", holding("recitals.json", "[3]")),
    "checks.json is text": ("checks.json", holding("checks.json", '"x"')),
    "recipe.toml is cut": ("recipe.toml", holding("recipe.toml", "[train\n")),
    "recipe.toml is unknown": ("recipe.toml", holding("recipe.toml", "martian = 3\n")),
    "recipe.toml is missing": ("recipe.toml", lacking("recipe.toml")),
    "recipe.toml is a link to itself": ("recipe.toml", linked("recipe.toml", "recipe.toml")),
    "history is missing": ("history.jsonl", lacking("history.jsonl")),
    "history of numbers": ("history.jsonl", holding("history.jsonl", "1\n2\n")),
    "history without steps": ("history.jsonl", holding("history.jsonl", '{"epoch": 1}\n')),
    "openings of a list": (
        "test_openings.jsonl",
        holding("data/test_openings.jsonl", "[1]\n"),
    ),
    "training rows are missing": ("train.jsonl", lacking("data/train.jsonl")),
    "training rows are cut": ("train.jsonl", cut("data/train.jsonl")),
    "test rows are missing": ("test.jsonl", lacking("data/test.jsonl")),
    "losses are text": ("best-test.npz", holding("evaluations/best-test.npz", "hello")),
    "the best is missing": ("best", lacking("best")),
    "the best is cut": ("model.safetensors", cut("best/model.safetensors")),
    "another layout": ("status.json", with_values("status.json", layout="heldout.run/99")),
    "another state": ("status.json", with_values("status.json", state="martian")),
    "a model that climbs": ("model", with_values("environment.json", model="../../../nowhere")),
}

# What of a half-way run is changed before it is resumed; the pattern that the refusal must hold.
CHANGED = (
    ("the base has other weights", "model.*changed"),
    ("the base is gone", "model"),
    ("training rows were edited", r"data/train\.jsonl.*changed"),
    ("test rows were edited", r"data/test\.jsonl.*changed"),
    ("the recipe was edited", r"recipe\.toml.*changed"),
)


def changed(name: str, m: Materials, at: Path) -> list[str]:
    """A run that was killed half-way and then changed, with the command that goes on with it."""
    model = Path(shutil.copytree(m.model, at / "model"))
    half = Place(at.parent / "half").make()
    words = [str(model) if word == str(m.model) else word for word in m.fit]
    running = half.forked([*words, "--out", str(at / "run")])
    history = at / "run" / "history.jsonl"
    running.wait_until(lambda used: history.exists() and history.read_text().count("\n") > 1)
    running.send(signal.SIGKILL)
    running.end()
    run = at / "run"
    if name == "the base has other weights":
        in_a_process(lambda: save_model(model, texts(90, 130)))
    elif name == "the base is gone":
        shutil.rmtree(model)
    elif name == "the recipe was edited":
        path = run / "recipe.toml"
        path.write_text(path.read_text().replace("max_epochs = 2.0", "max_epochs = 3.0"))
    elif "rows" in name:
        path = run / "data" / f"{'train' if 'training' in name else 'test'}.jsonl"
        path.write_text(path.read_text().replace("the", "an", 1))
    return ["fit", "--resume", "run"]
