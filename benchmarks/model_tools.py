"""What tools that look at a trained model say of the same models: heldout beside three others.

weightwatcher 0.7.7 (weights alone: the tail exponent alpha of each layer), contamcheck 0.1.0
(whether a model knows given texts, against its base) and memaudit 0.2.0 (canaries planted before
training; training rows against held-out ones), each by its own command, in an environment of its
own. The embedded model is trained by transformers' Trainer on sentences about the history of
countries (World Factbook, one a country, with numbers, since contamcheck swaps numbers), twelve
runs a seed: 4 healthy, 4 overfitted, 2 with a third of the 48 held-out rows in training,
one broken by its rate and one hardly trained (``model_tools_runs.py``). Every run also trains on
the canaries that memaudit's documentation has one plant: 16 with a coin each, once in the data
(its default would be more rows than there are), and 100 controls that are not.

    python benchmarks/model_tools.py PYTHON --minutes 10   # of the environment with the three
    python benchmarks/model_tools.py PYTHON --record       # and write the record
    python benchmarks/model_tools.py PYTHON --tiny         # one run of four steps; no record

Each tool is asked what it was made to tell, by ``model_tools_asked.py``:

- *separates*: the area under the curve (1: any overfitted model above any healthy one) of each
  number that it gives. weightwatcher: mean alpha, lower for overfitted, and its layers called
  over-trained. contamcheck: shares of training rows flagged beside held-out ones. memaudit: area
  and true-positive rate of its canaries, the share of them that is recited, and the gap between
  training and held-out rows. heldout: held-out loss minus the base's, and the share of rows
  recited. 95 % intervals by Newcombe's method 5 (2006, doi 10.1002/sim.2324), of
  models that share rows, so they are too narrow if anything.
- *found* and *alarms*: overfitted models it alarms on, and healthy ones and the hardly trained.
  weightwatcher: more layers over-trained than in the base. contamcheck: exit code 1. memaudit gives
  no verdict; taken is that more canaries are surely detected than its target of 1 %, or any is
  recited. Both tell what was seen, which is no fault of a training row: their alarms on healthy
  models are right by what they ask. heldout: the light fit or memorization is red.
- *leaks found* and *leaks falsely*: contamcheck by number twins of the held-out rows, exit code 1,
  and heldout by its light leakage, on models that saw held-out rows and on all others. heldout has
  the training rows for that and contamcheck needs none. The other two do not ask this.

Criteria, set before the recorded run: heldout's area by its held-out loss is at least that of every
number of every other tool (``heldout_auc`` >= ``best_other_auc``); it finds at least .9 of the
overfitted models and alarms on none of the healthy ones; it finds all leaks and none falsely. The
rest is shown and not judged, CPU seconds of a model among it, without imports of libraries.

Runs and answers are kept in ``.cache/model_tools``, by the hash of these scripts, and go seed by
seed, up to three; a run takes about a minute of CPU. The record holds the seeds that have all their
runs when the time is over: the clock decides, not a figure.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from model_tools_asked import TOOLS, answer_of
from model_tools_runs import KINDS, sentences, write_run
from record import write_record

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "src" / "heldout" / "assets" / "demo_model"
FOLDER = Path(".cache/model_tools")
ASKED = str(Path(__file__).with_name("model_tools_asked.py"))
SEEDS = (0, 1, 2)
LOWER = {"alpha"}  # for what is overfitted
VERSIONS = "weightwatcher 0.7.7, contamcheck 0.1.0, memaudit 0.2.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("python", help="of an environment with the three tools")
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--note", default="", help="put into the record, such as other load")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    transformers.utils.logging.disable_progress_bar()
    cases = [(kind, seed) for seed in SEEDS for kind in KINDS]
    if options.tiny:
        with tempfile.TemporaryDirectory() as place:
            go_on(options.python, Path(place), [("leaked", 0)], 10, most_steps=4)
            print(json.dumps(line_of(Path(place), "leaked", 0), indent=1))
        return
    folder = FOLDER / sources_hash()
    end = time.monotonic() + 60 * options.minutes
    for seed in SEEDS:
        of_seed = [(kind, seed) for kind in KINDS]
        go_on(options.python, folder, of_seed, (end - time.monotonic()) / 60)
    whole = [seed for seed in SEEDS if all(is_done(folder, kind, seed) for kind in KINDS)]
    done = [case for case in cases if is_done(folder, *case)]
    print(f"{len(done)} of {len(cases)} runs are done.")
    lines = [line_of(folder, *case) for case in done if case[1] in whole or not options.record]
    if lines:
        print(json.dumps(figures(lines), indent=1))
    if options.record:
        assert whole, "no seed has all its runs: run with --minutes"
        texts = "\0".join(text for found in sentences().values() for text in found)
        path = write_record(
            "model_tools",
            figures(lines),
            table=lines,
            seeds=whole,
            data_sha256=hashlib.sha256(texts.encode()).hexdigest(),
            command="python benchmarks/model_tools.py PYTHON --minutes 60 --record",
            note="; ".join(filter(None, [VERSIONS, options.note])),
        )
        print(f"wrote {path}")


def go_on(
    python: str,
    folder: Path,
    cases: list[tuple[str, int]],
    minutes: float,
    most_steps: int = -1,
) -> None:
    """Train what is not trained, then ask each tool what it was not asked."""
    end = time.monotonic() + 60 * minutes
    for kind, seed in cases:
        place = place_of(folder, kind, seed)
        if place.exists() or time.monotonic() > end:
            continue
        begin = time.process_time()
        planted = canaries(python, folder, seed)
        partial = folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        truth = write_run(KINDS[kind], seed, planted["texts"], partial, most_steps)
        truth["training_cpu_seconds"] = time.process_time() - begin
        for name, held in (("manifest", planted["manifest"]), ("truth", truth)):
            (partial / f"{name}.json").write_text(json.dumps(held), encoding="utf-8")
        shutil.rmtree(partial / "steps", ignore_errors=True)
        partial.rename(place)
        print(kind, seed, truth, flush=True)
    places = [p for case in cases if (p := place_of(folder, *case)).exists()]
    for tool in TOOLS:
        waiting = [str(place) for place in places if not answer_of(tool, place).exists()]
        left = (end - time.monotonic()) / 60
        if waiting and left > 0:
            chosen = sys.executable if tool == "heldout" else python
            subprocess.run([chosen, ASKED, tool, str(BASE), str(left), *waiting], check=True)


def place_of(folder: Path, kind: str, seed: int) -> Path:
    return folder / f"{kind.replace(',', '').replace(' ', '-')}-{seed}"


def is_done(folder: Path, kind: str, seed: int) -> bool:
    return all(answer_of(tool, place_of(folder, kind, seed)).exists() for tool in TOOLS)


def line_of(folder: Path, kind: str, seed: int) -> dict[str, Any]:
    """What is true of a run, and what each tool said of it."""
    place = place_of(folder, kind, seed)
    said = {tool: json.loads(answer_of(tool, place).read_text(encoding="utf-8")) for tool in TOOLS}
    truth = json.loads((place / "truth.json").read_text(encoding="utf-8"))
    return {"kind": kind, "group": KINDS[kind].group, "seed": seed, **truth, "said": said}


def canaries(python: str, folder: Path, seed: int) -> dict[str, Any]:
    """Texts and manifest that memaudit makes of a seed, kept for further runs."""
    path = folder / f"canaries-{seed}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [python, ASKED, "plant", str(BASE), str(path), str(seed)]
        subprocess.run(command, check=True)
    return json.loads(path.read_text(encoding="utf-8"))


def figures(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Areas with intervals, shares found and false, and CPU seconds, of each tool."""
    found: dict[str, float] = {}
    areas: dict[str, list[float]] = {}
    for tool in TOOLS:
        said = [(line["group"], line["said"][tool]) for line in lines]
        answers = [(group, one) for group, one in said if "numbers" in one]
        found[f"{tool}_errors"] = len(said) - len(answers)
        for name in dict.fromkeys(name for _, one in answers for name in one["numbers"]):
            sign = -1 if name in LOWER else 1
            over, healthy = (
                [sign * value for group, one in answers
                 if group == wanted and (value := one["numbers"][name]) is not None]
                for wanted in ("overfitted", "healthy")
            )  # fmt: skip
            if over and healthy:
                area = area_under_curve(over, healthy)
                low, high = area_bounds(area, len(over), len(healthy))
                found |= {
                    f"{tool}_{name}_auc": area,
                    f"{tool}_{name}_auc_low": low,
                    f"{tool}_{name}_auc_high": high,
                }
                areas.setdefault(tool, []).append(area)
        for name, asked, groups in (
            ("found", "alarm", ("overfitted",)),
            ("alarms", "alarm", ("healthy", "untrained")),
            ("broken_found", "alarm", ("broken",)),
            ("leaks_found", "leak", ("leaked",)),
            ("leaks_falsely", "leak", ("healthy", "overfitted", "broken", "untrained")),
        ):
            values = [one[asked] for group, one in answers if group in groups and asked in one]
            if values:
                found |= {
                    f"{tool}_{name}": sum(values) / len(values),
                    f"{tool}_{name}_models": len(values),
                }
        if answers:
            seconds = [one["cpu_seconds"] for _, one in answers]
            found[f"{tool}_cpu_seconds"] = statistics.median(seconds)
    if "heldout" in areas:
        found["heldout_auc"] = found["heldout_loss_above_base_auc"]
        found["best_other_auc"] = max(max(areas[tool]) for tool in areas if tool != "heldout")
    return found


def area_under_curve(members: list[float], others: list[float]) -> float:
    """Share of pairs in which the member is above; ties count one half."""
    pairs = [(member, other) for member in members for other in others]
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


def area_bounds(area: float, num_members: int, num_others: int) -> tuple[float, float]:
    """95 % by Newcombe's method 5: the areas of which the one seen is 1.96 errors away."""
    half = (num_members + num_others) / 2 - 1

    def error(true: float) -> float:
        more = half * ((1 - true) / (2 - true) + true / (1 + true))
        return math.sqrt(true * (1 - true) * (1 + more) / (num_members * num_others))

    def bound(outside: float) -> float:
        inside = area
        for _ in range(60):
            middle = (inside + outside) / 2
            if abs(middle - area) < 1.96 * error(middle):
                inside = middle
            else:
                outside = middle
        return inside

    return bound(0.0), bound(1.0)


def sources_hash() -> str:
    """Of the code that makes the runs and asks about them."""
    here = Path(__file__).parent
    paths = [
        *sorted(here.glob("model_tools*.py")),
        *(here / "planted" / name for name in ("run_of_trainer.py", "training.py")),
    ]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]


if __name__ == "__main__":
    main()
