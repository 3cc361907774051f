"""What tools that read training logs say of the same logs: heldout beside four others.

finetune-doctor 0.2.2, losslint 0.4.1, trainspotter 0.2.6 and runmedic 0.1.1, each through its own
library, in an environment of its own. The logs are ``trainer_state.json`` files, which all read:
made-up courses of a held-out loss with normal jitter, of which the answer is known.

- rising: four shapes, a rise of 0.1, 0.3 or 1 nat, jitter 0.005, 0.02 or 0.05, 3 to 40 evaluations
- level: no change but jitter; falling: three shapes that end at their lowest
- broken: what is wrong with the log or with the training is told by the log alone

A tool *names a rise* where one of its findings says that the held-out loss has worsened since its
best, at any severity; heldout where its light fit is red. It *alarms* where it has any finding
above its lowest severity; heldout where a light is red or a cause is named. Of a broken log it is
right where a finding of any severity is of that fault.

Criteria, set before the recorded run: of all rising logs heldout names at least as many as each of
the others (``named``), and of the level and falling ones it names no more (``named_falsely``).
Since one can be bought with the other, a third: the share named minus the share named falsely is
the highest (``informedness``). Alarms on sound logs and broken logs are shown and not judged.

    python benchmarks/log_tools.py PYTHON     # of a virtual environment with the four
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SEED = 20261201
NUMS = (3, 5, 10, 20, 40)
JITTERS = (0.005, 0.02, 0.05)
RISES = (0.1, 0.3, 1.0)
DRAWS, LEVEL_DRAWS, BROKEN_DRAWS = 4, 12, 5
STEPS, LOGGED, EPOCHS = 600, 60, 6
COMMANDS = {
    "finetune-doctor": ["finetune-doctor"],
    "losslint": ["losslint", "check"],
    "trainspotter": ["trainspotter", "analyze"],
    "runmedic": ["runmedic", "diagnose"],
}


class Found(NamedTuple):
    """What one tool says of one log: its findings as (name, severity), or why there are none."""

    findings: list[tuple[str, str]]
    error: str = ""


# The logs


def state(losses: list[float], training: list[float], rng: Any) -> dict[str, Any]:
    """A Trainer's log of six epochs: a warm-up, a cosine, and gradient norms about 1."""
    import numpy as np

    entries = []
    for index, loss in enumerate(training):
        step = (index + 1) * STEPS // LOGGED
        share = step / STEPS
        rate = 1e-4 * min(1.0, share / 0.1) * (0.55 + 0.45 * np.cos(np.pi * share))
        entries.append(
            {
                "loss": round(float(loss), 4),
                "grad_norm": float(rng.lognormal(0, 0.2)),
                "learning_rate": float(rate),
                "epoch": EPOCHS * share,
                "step": step,
            }
        )
    for index, loss in enumerate(losses):
        step = (index + 1) * STEPS // len(losses)
        entries.append({"eval_loss": float(loss), "epoch": EPOCHS * step / STEPS, "step": step})
    return {
        "best_global_step": None,
        "best_metric": None,
        "epoch": float(EPOCHS),
        "global_step": STEPS,
        "max_steps": STEPS,
        "num_train_epochs": EPOCHS,
        "train_batch_size": 8,
        "log_history": sorted(entries, key=lambda entry: (entry["step"], "eval_loss" in entry)),
    }


def logs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Group, setting and content of each log."""
    import numpy as np
    from log_noise import with_rise, without_rise

    rng = np.random.default_rng(SEED)

    def of(curve: Any, jitter: float, end: float) -> dict[str, Any]:
        training = np.linspace(2.6, end, LOGGED) + rng.normal(0, jitter, LOGGED)
        return state(list(curve + rng.normal(0, jitter, len(curve))), list(training), rng)

    for num in NUMS:
        for jitter in JITTERS:
            where = f"{num} evaluations, jitter {jitter}"
            for rise in RISES:
                for name, curve in with_rise(num, rise).items():
                    for _ in range(DRAWS):
                        yield f"rise {rise}", f"{name}, {where}", of(curve, jitter, 2.0 - rise)
            for name, curve in without_rise(num).items():
                level = name == "level"
                for _ in range(LEVEL_DRAWS if level else DRAWS):
                    yield (
                        "level" if level else "falling",
                        f"{name}, {where}",
                        of(curve, jitter, 2.5 if level else 1.9),
                    )
    yield from broken(rng)


def broken(rng: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Faults that the log alone shows, in logs of twelve evaluations that would else be sound."""
    import numpy as np

    falling, nan = 2 + 0.6 * np.exp(-5 * np.linspace(0, 1, 12)), float("nan")
    for _ in range(BROKEN_DRAWS):
        for name in BROKEN:
            losses = list(falling + rng.normal(0, 0.005, 12))
            training = list(np.linspace(2.6, 1.9, LOGGED) + rng.normal(0, 0.01, LOGGED))
            if name == "diverged":
                losses[7:] = [2.6 + 0.7 * i for i in range(5)]
                training[38:] = [2.4 + 0.15 * i for i in range(LOGGED - 38)]
            if name == "evaluations are NaN from the middle on":
                losses[6:] = [nan] * 6
            if name == "all evaluations are NaN":
                losses = [nan] * 12
            made = state(losses, training, rng)
            entries = made["log_history"]
            if name == "loss 0 beside a gradient norm of NaN":
                for entry in entries:
                    if "loss" in entry and entry["step"] > 350:
                        entry.update(loss=0.0, grad_norm=nan)
                    if "eval_loss" in entry and entry["step"] > 350:
                        entry["eval_loss"] = nan
            if name == "training loss summed over 16 batches":
                for entry in entries:
                    if "loss" in entry:
                        entry["loss"] *= 16
            if name == "a named evaluation that rises":
                for index, entry in enumerate(e for e in entries if "eval_loss" in e):
                    entry["eval_news_loss"] = 2.0 + 0.1 * index
                    del entry["eval_loss"]
            if name == "a rise with epochs that are null":
                for index, entry in enumerate(e for e in entries if "eval_loss" in e):
                    entry["eval_loss"] = 2.0 + 0.1 * index
                for entry in entries:
                    entry["epoch"] = None
            yield "broken", name, made


# Words of which one must be in the name of a finding that is of the fault.
_RISE = ("overfit", "divergence", "rise", "not_learning", "fit")
_NAN = ("nan", "finite", "divergence", "degenerate", "fault")
BROKEN = {
    "diverged": _RISE,
    "evaluations are NaN from the middle on": _NAN,
    "all evaluations are NaN": _NAN,
    "loss 0 beside a gradient norm of NaN": (*_NAN, "gradients", "grad_norm"),
    "training loss summed over 16 batches": ("summed", "below_train"),
    "a named evaluation that rises": _RISE,
    "a rise with epochs that are null": _RISE,
}
# Findings that say that the held-out loss has worsened since its best.
RISE = {
    "finetune-doctor": "overfitting",
    "losslint": "overfit_onset",
    "trainspotter": "overfitting",
    "runmedic": "overfitting",
    "heldout": "fit",
}
LOWEST = {"info", "INFO", "OK", "ok"}


# The tools


def _finetune_doctor(path: Path) -> list[tuple[str, str]]:
    from finetune_doctor.diagnosis import diagnose
    from finetune_doctor.history import load

    return [(one.check, one.severity.name) for one in diagnose(load(str(path))).findings]


def _losslint(path: Path) -> list[tuple[str, str]]:
    from losslint.checks import run_all_checks
    from losslint.parsing import load_run

    return [(one.check, one.severity) for one in run_all_checks(load_run(path))]


def _trainspotter(path: Path) -> list[tuple[str, str]]:
    from trainspotter.detectors import run_all
    from trainspotter.readers import load_run

    run = load_run(str(path))
    if not run.metric_names():
        raise ValueError("no numeric metrics found")
    return [(one.detector, one.severity) for one in run_all(run)]


def _runmedic(path: Path) -> list[tuple[str, str]]:
    from runmedic import loaders, roles
    from runmedic.checks import run_checks

    found = []
    for run in loaders.load(str(path)):
        found += [(one.check, one.severity) for one in run_checks(run, roles.detect(run, {}))]
    return found


def _heldout(path: Path) -> list[tuple[str, str]]:
    from heldout.jobs.diagnosing.diagnose import diagnose

    result = diagnose(path)
    reds = [name for name, one in result.verdict.verdicts.items() if one.color == "red"]
    found = [(name, "red") for name in reds]
    found += [(cause.name, "cause") for cause in result.verdict.causes]
    first = result.verdict.headline
    if any(word in first for word in (" is NaN", " died ")):
        found.append(("fault", "warning"))
    if any("sum over accumulation steps" in text for text in result.warnings):
        found.append(("summed", "warning"))
    return found


TOOLS = {
    "finetune-doctor": _finetune_doctor,
    "losslint": _losslint,
    "trainspotter": _trainspotter,
    "runmedic": _runmedic,
    "heldout": _heldout,
}


def said_by(tool: str, folder: Path) -> list[Found]:
    """What one tool says of each log of a folder, in the order of their names."""
    said = []
    for file in sorted(folder.glob("*/trainer_state.json")):
        try:
            said.append(Found(TOOLS[tool](file)))
        except Exception as error:
            said.append(Found([], f"{type(error).__name__}: {error}"))
    return said


def _by_others(python: str, tool: str, folder: Path) -> list[Found]:
    """The same, by the interpreter that has the tool."""
    done = subprocess.run(
        [python, __file__, "--tool", tool, str(folder)], capture_output=True, text=True, check=True
    )
    return [
        Found([tuple(one) for one in f], e) for f, e in json.loads(done.stdout.splitlines()[-1])
    ]


def _cpu_seconds(command: list[str]) -> float:
    """Of a whole command on one log: the median of five."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(times)


def rows_of(tool: str, made: list[tuple[str, str]], said: list[Found]) -> list[dict[str, Any]]:
    """One row per group of sound logs, and one per kind of broken ones."""
    rows = []
    groups = list(dict.fromkeys(group if group != "broken" else name for group, name in made))
    for group in groups:
        found = [
            one for (g, name), one in zip(made, said, strict=True)
            if group == (g if g != "broken" else name)
        ]  # fmt: skip
        row = {
            "tool": tool,
            "logs": group,
            "num": len(found),
            "named": sum(any(n == RISE[tool] for n, _ in one.findings) for one in found),
            "alarms": sum(any(s not in LOWEST for _, s in one.findings) for one in found),
            "errors": sum(bool(one.error) for one in found),
        }
        if group in BROKEN:
            words = BROKEN[group]
            row["right"] = sum(
                any(word in n for n, s in one.findings if s != "cause" for word in words)
                for one in found
            )
        row["example"] = next((one.error for one in found if one.error), "")[:200]
        rows.append(row)
    return rows


def main(python: str) -> None:
    from record import write_record

    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = []
        for index, (group, setting, content) in enumerate(logs()):
            made.append((group, setting))
            (folder / f"{index:05}").mkdir()
            text = json.dumps(content)
            (folder / f"{index:05}" / "trainer_state.json").write_text(text, encoding="utf-8")
        log = str(folder / "00000" / "trainer_state.json")
        for tool in TOOLS:
            ours = tool == "heldout"
            said = said_by(tool, folder) if ours else _by_others(python, tool, folder)
            rows += (mine := rows_of(tool, made, said))
            rising = [row for row in mine if row["logs"].startswith("rise ")]
            sound = [row for row in mine if row["logs"] in ("level", "falling")]
            num, num_sound = (sum(row["num"] for row in part) for part in (rising, sound))
            named, falsely = (sum(row["named"] for row in part) for part in (rising, sound))
            command = (
                [sys.executable, "-m", "heldout", "diagnose"] if ours else
                [str(Path(python).parent / COMMANDS[tool][0]), *COMMANDS[tool][1:]]
            )  # fmt: skip
            key = tool.replace("-", "_")
            figures |= {
                f"{key}_named": named / num,
                f"{key}_named_falsely": falsely / num_sound,
                f"{key}_informedness": named / num - falsely / num_sound,
                f"{key}_alarms": sum(row["alarms"] for row in sound) / num_sound,
                f"{key}_faults": sum(
                    row["right"] > row["num"] / 2 for row in mine if "right" in row
                ),
                f"{key}_cpu_seconds": _cpu_seconds([*command, log]),
            }
    figures |= {"num_rising": num, "num_sound": num_sound, "num_faults": len(BROKEN)}
    written = write_record(
        "log_tools", figures, table=rows, seeds=[SEED], data_sha256="",
        note="made-up courses; finetune-doctor 0.2.2, losslint 0.4.1, trainspotter 0.2.6, runmedic "
        "0.1.1",
    )  # fmt: skip
    print(written)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--tool"]:
        print(json.dumps(said_by(sys.argv[2], Path(sys.argv[3]))))
    elif len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        sys.exit("Give the interpreter of an environment that has the four tools.")
