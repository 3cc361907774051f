"""Does `heldout diagnose` name what was planted in runs of other people's trainers?

    python benchmarks/planted/trainers.py --minutes 10    # goes on where it was, as often as needed
    python benchmarks/planted/trainers.py --minutes 10 --share 1/2    # beside --share 2/2
    python benchmarks/planted/trainers.py --record        # and write the record
    python benchmarks/planted/trainers.py --tiny          # one case of each kind, short; no record

The embedded model is trained by transformers' ``Trainer`` and by TRL's ``SFTTrainer``, whole or
with LoRA of rank 16, on three texts that no rule was chosen on (what one does with web services,
which browsers support what, manuals of npm and its packages), with seeds of their own. Rows come
with groups, or without and dealt by row; the folder holds the last weights alone, a checkpoint of
each epoch, or the best one, loaded at the end; some runs evaluate before they begin, as trainers
can and do not by default. What is diagnosed is the folder that such a run leaves, with its rows and
its base. Commands always name their group: those of one service are alike.

It is the sixth such set. The first was ended after 67 of its cases: 28 of 29 faults were named
first, none of 14 impostors as overfitting, and of 38 healthy trainings three were called leaky, for
one held-out row of 84 that was nearly a training row; a leak is a cause now only where it is surely
more than one row in a hundred. The second, whole, named 64 of 65 faults first and a leak in 1 of 61
healthy trainings: truly, as four of its answers stood word for word in training, under prompts
that hid them from the maker of the set. Answers are compared alone now. The third was ended after
63 cases: 31 of 32 faults named first, and in 1 of 31 healthy trainings a rate called too high, as
in the fault missed, for a rise in the first epoch that its log could not tell from jitter. Such a
rise is no clue any more. The fourth was ended after 15 cases, when a rate far too high was missed
by that rule; half a nat within an epoch is no jitter now. The fifth was ended after 48 cases: 28 of
29 faults named first, no impostor as overfitting, and a cause named in 2 of 19 healthy trainings: a
later and lower evaluation made one "better before", and what one wrote, a URL round and round,
counted as broken though its light was yellow. All of that is mended.

Planted are six causes and seven impostors with five seeds each, 65 in all, by the plans of
``plants.py``; 61 healthy trainings stand beside them. Not planted are weak regularization, which is
not claimed where a log does not tell the weight decay, forgetting, which needs other text, and
answers that were swapped, which needs prompts.

A cause counts where a repair of it, rerun with the same trainer, lowers the held-out loss by .02
nats/token or more; what is true is the repair that lowers it most, or cannot be told from it by a
paired interval. An impostor counts as planted. Rules that are changed after the first recorded run
need other texts and seeds. Criteria, fixed before it:

- ``first_cause_accuracy`` >= .9 and ``first_cause_lower`` >= .8 (Clopper-Pearson, 95 %), of causes
  and impostors together, ``faulty`` >= 60;
- ``healthy`` >= 60, with ``false_alarm_rate`` 0: no cause is named; of these none may have a
  held-out loss above the base model's, else it counts as faulty and is left out;
- ``impostors_called_overfitting`` 0;
- ``confidence_bins_missed`` 0: statements are sorted by the confidence that is stated of the cause
  named first and divided into bins of 20 or more; in each the mean stated confidence lies inside
  the Clopper-Pearson interval of the share that was right; ``expected_calibration_error`` <= .1.

A case is a line of ``.cache/planted/trainers.jsonl`` when it is done, by the hash of the rules and
of these scripts; one takes about a minute of CPU with its repairs.
"""

# ruff: noqa: E402, I001 - the modules beside this script, and the record writer above it.

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import numpy as np
import torch
import transformers
from plants import CAUSES, HEALTHY, IMPOSTORS, Case, healthy_plan, planted_plan, repairs
from record import write_record
from run_of_trainer import Setup, trained
from texts import OF_TRAINERS, hash_of
from training import FULL_RATE, MAX_LENGTH, MODEL

from heldout.core.distributions import exact_bounds
from heldout.core.losses import DocumentLosses
from heldout.diagnosis.causes import read_rules
from heldout.jobs.diagnosing.diagnose import diagnose

LINES = ROOT / ".cache" / "planted" / "trainers.jsonl"
SEEDS = (90, 91, 92, 93, 94)
NOT_PLANTED = ("weak_regularization", "forgetting")
PLANTED = (*(cause for cause in CAUSES if cause not in NOT_PLANTED), *IMPOSTORS)
NUM_HEALTHY = 61
LEAST_GAIN = 0.02  # nats/token: a repair that gains less is none
NO_CAUSE = "none"
BIN = 20  # statements at least
SOURCES = ("diagnosis/causes.toml", "diagnosis/causes.py", "diagnosis/features.py",
           "diagnosis/over_epochs.py", "diagnosis/writing.py")  # fmt: skip


@dataclass(frozen=True)
class TrainerCase:
    """One run and its diagnosis."""

    case: Case
    setup: Setup

    @property
    def key(self) -> str:
        return f"{self.case.name} {sources_hash()}"


def all_cases() -> list[TrainerCase]:
    """Faults and healthy runs in turn, so that a part of them shows both."""
    faulty = [
        Case(f"{planted}-{text}-{seed}", planted, planted_plan(planted, text, seed))
        for number, seed in enumerate(SEEDS)
        for place, planted in enumerate(PLANTED)
        for text in [OF_TRAINERS[(number + place) % len(OF_TRAINERS)]]
    ]
    healthy = []
    for number in range(NUM_HEALTHY):
        text, seed = OF_TRAINERS[number % len(OF_TRAINERS)], SEEDS[0] + number // len(OF_TRAINERS)
        plan = healthy_plan(number // len(OF_TRAINERS), text, seed)
        if plan.method == "lora":  # the setup says which run is one
            plan = replace(plan, method="full", rate=FULL_RATE)
        if number // 2 % 2:  # the last weights are kept: so few epochs that they are the best
            plan = replace(plan, epochs=2, keep_best=False)
        healthy.append(Case(f"{HEALTHY}-{text}-{seed}", HEALTHY, plan))
    turns = [
        *zip(faulty, healthy, strict=False),
        *((case,) for case in faulty[len(healthy) :]),
    ]
    found = [case for turn in turns for case in turn]
    return [TrainerCase(case, setup_of(case, number)) for number, case in enumerate(found)]


def setup_of(case: Case, number: int) -> Setup:
    """Trainers, methods and what is kept, in turn; a fault is not mended by what is kept."""
    turn = number // 2  # faulty and healthy cases alternate
    whole = case.planted == "tokenizer_mismatch"  # an adapter has its base's tokenizer
    kept = "best" if case.plan.keep_best else ("last", "checkpoints")[turn // 4 % 2]
    return Setup(
        trainer=("trainer", "trl")[turn % 2],
        lora=turn // 3 % 3 == 2 and not whole,
        groups=turn // 2 % 3 != 2 or case.plan.text == "commands",
        kept=kept,
        evaluates_first=turn % 5 < 2,
    )


def run_case(one: TrainerCase, most_steps: int = -1) -> dict[str, Any]:
    """Train, diagnose, and rerun the repairs; a line of JSON values."""
    begin = time.process_time()
    case, setup = one.case, one.setup
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        run = trained(case.plan, setup, folder, most_steps)
        found = diagnose(
            folder / "out",
            train=folder / "train.jsonl",
            heldout=folder / "heldout.jsonl",
            base=MODEL,
            settings=(
                f"data.max_length={MAX_LENGTH}",
                *(("data.group=group",) if setup.groups else ()),
            ),
            generate=most_steps < 0,
        )
        true, gains = true_causes(case, setup, run.heldout, run.best_epoch, most_steps)
    return {
        "key": one.key,
        "case": case.name,
        "planted": case.planted,
        "plan": asdict(case.plan),
        "setup": asdict(setup),
        "named": [cause.name for cause in found.verdict.causes],
        "confidence": [cause.confidence for cause in found.verdict.causes],
        "lights": {name: v.color for name, v in found.verdict.verdicts.items()},
        "true": true,
        "gains": gains,
        "heldout_nll": run.heldout.nats_per_token,
        "base_nll": run.base_nll,
        "seconds": time.process_time() - begin,
    }


def true_causes(
    case: Case, setup: Setup, broken: DocumentLosses, best_epoch: float, most_steps: int
) -> tuple[list[str], dict[str, float]]:
    """The repairs that lower the held-out loss most, and the gain of each in nats/token."""
    if case.planted == HEALTHY:
        return [], {}
    if case.planted in IMPOSTORS:
        return [case.planted], {}
    mended: dict[str, DocumentLosses] = {}
    for name, plan in repairs(case, best_epoch).items():
        if name not in NOT_PLANTED:
            mended[name] = trained(plan, setup, None, most_steps).heldout
    gains = {name: broken.minus(losses).value for name, losses in mended.items()}
    helpful = [name for name, gain in gains.items() if gain >= LEAST_GAIN]
    if not helpful:
        return [], gains
    best = max(helpful, key=lambda name: gains[name])
    tied = [
        name
        for name in helpful
        if name == best or mended[name].minus(mended[best]).interval.low <= 0
    ]
    return tied, gains


def first(line: dict[str, Any]) -> str:
    return line["named"][0] if line["named"] else NO_CAUSE


def figures(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Of the lines that count."""
    overfitting = {rule.name for rule in read_rules().rules if rule.kind == "overfitting"}
    faulty = [line for line in lines if line["true"]]
    impostors = [line for line in lines if line["planted"] in IMPOSTORS]
    healthy = [
        line
        for line in lines
        if line["planted"] == HEALTHY and line["heldout_nll"] <= line["base_nll"]
    ]
    right = [first(line) in line["true"] for line in faulty]
    found: dict[str, float] = {
        "faulty": len(faulty),
        "plants_without_a_repair": len(lines) - len(faulty)
        - sum(line["planted"] == HEALTHY for line in lines),
        "healthy": len(healthy),
        "impostors_called_overfitting": sum(
            not overfitting.isdisjoint(line["named"]) for line in impostors
        ),
    }  # fmt: skip
    if faulty:
        found["first_cause_accuracy"] = float(np.mean(right))
        found["first_cause_lower"] = exact_bounds(sum(right), len(right), 0.95)[0]
    if healthy:
        found["false_alarm_rate"] = float(np.mean([bool(line["named"]) for line in healthy]))
    stated = [line for line in (*faulty, *healthy) if line["named"]]
    return found | calibration(
        [(line["confidence"][0], first(line) in line["true"]) for line in stated]
    )


def calibration(statements: list[tuple[float, bool]]) -> dict[str, float]:
    """Bins of ``BIN`` statements or more, by stated confidence; none with fewer."""
    num_bins = len(statements) // BIN
    if not num_bins:
        return {}
    missed, error = 0, 0.0
    for places in np.array_split(np.argsort([s for s, _ in statements], kind="stable"), num_bins):
        members = [statements[place] for place in places.tolist()]
        said = float(np.mean([stated for stated, _ in members]))
        hits = sum(was_right for _, was_right in members)
        low, high = exact_bounds(hits, len(members), 0.95)
        missed += not low <= said <= high
        error += abs(said - hits / len(members)) * len(members) / len(statements)
    return {
        "confidence_bins": num_bins,
        "confidence_bins_missed": missed,
        "expected_calibration_error": error,
    }


def finished() -> dict[str, dict[str, Any]]:
    if not LINES.exists():
        return {}
    lines = [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]
    return {line["key"]: line for line in lines}


def sources_hash() -> str:
    """Of the rules, of what they look at, and of what makes and judges the cases."""
    here = Path(__file__).parent
    paths = [*(ROOT / "src" / "heldout" / name for name in SOURCES), *sorted(here.glob("*.py"))]
    return sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--share", default="1/1", help="1/2 and 2/2 go side by side")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--note", default="", help="put into the record, such as other load")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    planned = all_cases()
    if options.tiny:
        healthy = next(one for one in planned if one.case.planted == HEALTHY)
        for one in (planned[0], replace(healthy, setup=Setup("trl", True, False, "best", True))):
            print(json.dumps(run_case(one, most_steps=4)), flush=True)
        return
    end = time.monotonic() + 60 * options.minutes
    done = finished()
    number, shares = map(int, options.share.split("/"))
    for one in planned[number - 1 :: shares]:
        if one.key not in done and time.monotonic() < end:
            line = run_case(one)
            LINES.parent.mkdir(parents=True, exist_ok=True)
            with LINES.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{line['case']}: {line['named']}, true {line['true']}", flush=True)
    done = finished()
    lines = [done[one.key] for one in planned if one.key in done]
    print(f"{len(lines)} of {len(planned)} cases are done.")
    print(json.dumps(figures(lines), indent=1))
    if options.record:
        assert len(lines) == len(planned), "not all cases are done: run with --minutes"
        path = write_record(
            "planted_trainers",
            figures(lines),
            table=lines,
            seeds=list(SEEDS),
            data_sha256=hash_of(OF_TRAINERS),
            command="python benchmarks/planted/trainers.py --record",
            note=options.note,
        )
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
