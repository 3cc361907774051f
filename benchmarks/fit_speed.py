"""`fit`, `diagnose` and `check` beside the build fba7634: CPU time, wall time, memory and losses.

    python benchmarks/fit_speed.py [--part chat ...] [--pairs N] [--work FOLDER] [--record]

The old build comes out of the git history (``git archive``) and runs in this environment; both are
started as a user would, ``python -m heldout ...``, in a process each, in turn: old, new, old, new,
the order of a pair reversed in every second one. Seconds of CPU are user and system of the whole
process tree, of both builds at one thread and one training at a time; seconds of the clock are
those of the new build as it starts by itself over the old one's at the faster of one and two
threads. A figure is the median of the pairs' ratios, beside it ``_low`` and ``_high``, the smallest
and largest, and their number. All rows are the same in both builds, and no control is trained but
in the demo.

Figures and what they must be, written down before the first recorded run:

- ``demo_wall`` <= .5, ``demo_cpu`` <= .8: `heldout fit --demo`, control included.
- ``chat_cpu`` <= .45, ``chat_wall`` <= .4: a fit with LoRA and its search on 300 conversations
  whose lengths are log-normal; ``tail_cpu`` <= .4: the same on a long tail. Real sentences of the
  World Factbook, embedded model. Both builds have the same to do: trials of one epoch, then five
  epochs without early stopping, which noise ends after other epochs in each.
- ``shipped_cpu`` and ``shipped_gain``, told beside them: chat by each build's own default. The new
  one has longer trials, and trains all weights of so small a model: it takes other seconds for
  another loss; the gain is the old loss on the sealed test less the new one, in nats/token.
- ``smollm2_lora_cpu`` <= .8: 30 steps of SmolLM2-135M with LoRA, both in float32;
  ``smollm2_lora_bf16_cpu`` <= .6: the new build in bfloat16 over the old in float32, where the
  processor has amx_bf16 or avx512_bf16, else not available.
- ``diagnose_cpu`` <= .6: a fine-tuned model with its base on 210 and 45 rows.
- ``check_100k_cpu`` <= .5: `heldout check` of 100,000 rows; ``near_duplicates_growth`` <= 12: CPU
  of that stage at 100,000 rows over that at 10,000 with the same share of duplicates (words of a
  passage in random order, as real text repeats itself the more, the more there is of it);
  ``near_duplicates_found_again`` = 1: share of the near duplicates that the old build lists which
  the new one lists, too.
- ``peak_memory`` <= .7: highest resident size in training less what is resident before it, rows of
  up to 2,048 tokens of log-normal lengths, four a step; ``peak_memory_alike``, told beside it:
  rows of nearly the same length, where nothing is to be had but the mask's share.
- ``loss_difference_no_noise`` <= 1e-4 nats/token: |new - old| on the sealed test of the kept
  checkpoint, float32. ``loss_difference_noise_low`` >= -.01 and ``_high`` <= .01: the interval (95
  %) of the mean difference over 10 seeds with dropout, NEFTune and gradient noise.
- ``over_trl_packing`` >= 1.2: scored tokens a CPU second of `heldout fit` over those of TRL's
  SFTTrainer with packing, in the second of two epochs without evaluation: same rows, float32,
  optimizer, one thread, tokens a step, no checkpointing; ``over_trl_packing_smollm2`` with LoRA.
  ``trl_attends_across`` is 1 where a packed row's logits are not those of the row alone.
- ``floor_PART``: the least CPU seconds, as a share of the old build's: tokens without padding times
  FLOPs over the measured rate of a matrix product; steps of the new build's run, its search's
  winner once, evaluations and sealed test included, attention's scores and generation left out.

``loss_bf16_over_plain`` <= 1.0 stands in the record of ``loss_bfloat16.py``.

Every measurement is one line of ``FOLDER/measured.jsonl``, written at once; a rerun goes on, and
lines of another state of the sources are not read. ``--tiny`` shows within minutes that all of it
runs, into a folder of its own, and records nothing. Some 130 minutes of CPU.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fit_speed_builds import Build, Cost, Log, builds, digest_of_text, environment_of, inside
from fit_speed_builds import measured as measured_command
from fit_speed_parts import (
    FULL,
    PARTS,
    SMOLLM2,
    TINY,
    Arm,
    Part,
    Place,
    Sizes,
    data_of,
    rows_folder,
)
from fit_speed_summary import recorded, summary
from fit_speed_work import work_of

DEALT = ("train", "validation", "test")
COUNTED = ("demo", "chat", "tail", "factbook")  # rows of which a floor is computed

Line = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Where everything lies, and what has been measured."""

    work: Path
    sizes: Sizes
    both: dict[str, Build]
    log: Log

    def environment(self, arm: Arm) -> dict[str, str]:
        return environment_of(self.both[arm.build], arm.threads, self.work)

    def place(self, part: Part, arm: Arm, pair: int) -> Place:
        folder = self.work / "runs" / f"{part.name}-{arm.name}-{pair}"
        return Place(self.work, folder, self.sizes, self.both[arm.build].version)

    def key(self, part: Part, arm: Arm, pair: int) -> str:
        """What must be equal for a line to count: build, command and rows."""
        command = " ".join(part.command(arm, self.place(part, arm, pair)))
        data = data_of(part.data, self.work, self.sizes)
        version = self.both[arm.build].version
        return digest_of_text(f"{command} {arm.threads} {data} {version}")

    def lines(self, part: Part) -> list[Line]:
        """Of this state of the sources, by pair and arm; of several the last one."""
        arms = {arm.name: arm for arm in part.arms}
        found: dict[tuple[str, int], Line] = {}
        for line in self.log.lines():
            if line["part"] != part.name or line["arm"] not in arms:
                continue
            if line["key"] == self.key(part, arms[line["arm"]], line["pair"]):
                found[line["arm"], line["pair"]] = line
        return list(found.values())


def main() -> None:
    options = parsed()
    sizes = TINY if options.tiny else FULL
    work = Path(options.work).resolve() / ("tiny" if options.tiny else "full")
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(work, sizes, builds(work), Log(work / "measured.jsonl"))
    parts = [part for part in PARTS if not options.part or part.name in options.part]
    for part in parts:
        prepare(bench, part)
    measure_all(bench, parts, options.pairs)
    lines = {part.name: bench.lines(part) for part in PARTS}
    rates = json.loads((work / "rate.json").read_text(encoding="utf-8"))
    counted = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in rows_folder(work).glob("*/tokens.json")
    }
    found = summary(lines, rates, counted)
    print(json.dumps(found.figures, indent=1))
    for missing in found.missing:
        print(f"not measured: {missing}")
    if options.record and options.tiny:
        raise SystemExit("--tiny records nothing: leave it out.")
    if options.record:
        print(recorded(found, options.note))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = [part.name for part in PARTS]
    parser.add_argument("--part", action="append", choices=names, help="only this; repeatable")
    parser.add_argument("--pairs", type=int, default=0, help="instead of each part's own number")
    parser.add_argument("--work", default="~/.cache/fit_speed", help="outside of the tree")
    parser.add_argument("--tiny", action="store_true", help="show that it runs")
    parser.add_argument("--record", action="store_true", help="write the record")
    parser.add_argument("--note", default="", help="put into the record, such as other load")
    options = parser.parse_args()
    options.work = str(Path(options.work).expanduser())
    return options


def prepare(bench: Bench, part: Part) -> None:
    """Rows, counts of tokens, the rate of a product, and what a part needs from the old build."""
    helper = Arm("helper", "new")
    rate, log = bench.work / "rate.json", bench.work / "prepare.log"
    rows = rows_folder(bench.work)
    if not (rows / part.data).exists():
        size = "tiny" if bench.sizes == TINY else "full"
        command = inside("rows", bench.work / "rows.json", part.data, str(bench.work), size)
        measured_command(command, bench.environment(helper), log)
    if not rate.exists():
        measured_command(inside("rate", rate), bench.environment(helper), log)
    counts = rows / part.data / "tokens.json"
    if part.data in COUNTED and not counts.exists():
        files = [
            str(rows / part.data / f"{name}.jsonl") for name in ("train", "validation", "test")
        ]
        command = inside("tokens", counts, part.model, *files)
        measured_command(command, bench.environment(helper), log)
        if part.model == SMOLLM2:  # its file is converted once, which is not what is measured
            command = inside("tokens", bench.work / "old.json", part.model, files[2])
            measured_command(command, bench.environment(Arm("old", "old")), log)
    prepared = rows / f"prepared-{part.name}"
    if part.prepare and not (prepared / "done").exists():
        shutil.rmtree(prepared, ignore_errors=True)
        command = part.prepare(bench.work, bench.sizes)
        measured_command(command, bench.environment(Arm("old", "old")), log)
        (prepared / "done").touch()


def measure_all(bench: Bench, parts: list[Part], pairs: int) -> None:
    """Whatever is missing, pair by pair, with the time left."""
    for part in parts:
        for pair, arm in planned(bench, part, pairs):
            if any(x["arm"] == arm.name and x["pair"] == pair for x in bench.lines(part)):
                continue
            left = seconds_left(bench, parts, pairs)
            print(
                f"{part.name} {pair + 1}/{pairs or part.pairs} {arm.name}: "
                f"about {left / 60:.0f} min left for all ...",
                flush=True,
            )
            line = measure(bench, part, arm, pair)
            cost = line["cost"]
            print(
                f"    {cost['cpu_seconds']:.1f} s of CPU, {cost['wall_seconds']:.1f} s, "
                f"{line['figures'] or ''}",
                flush=True,
            )


def planned(bench: Bench, part: Part, pairs: int) -> Iterator[tuple[int, Arm]]:
    """In the order of measuring. The old build at two threads goes on where it is the faster."""
    for pair in range(pairs or part.pairs):
        arms = [arm for arm in part.arms if runs_in(bench, part, arm, pair)]
        yield from ((pair, arm) for arm in (reversed(arms) if pair % 2 else arms))


def runs_in(bench: Bench, part: Part, arm: Arm, pair: int) -> bool:
    if "bf16" in arm.name and not has_bfloat16_units():
        return False
    if arm.name != "old_2" or pair == 0:
        return True
    first = {x["arm"]: x["cost"]["wall_seconds"] for x in bench.lines(part) if x["pair"] == 0}
    return first.get("old_2", 1e9) < first.get("old", 1e9)


def has_bfloat16_units() -> bool:
    path = Path("/proc/cpuinfo")
    words = set(path.read_text(encoding="utf-8").split()) if path.exists() else set()
    return bool(words & {"amx_bf16", "avx512_bf16"})


def seconds_left(bench: Bench, parts: list[Part], pairs: int) -> float:
    """From the medians of what has been measured, else from the guesses."""
    left = 0.0
    for part in parts:
        lines = bench.lines(part)
        done = {(line["pair"], line["arm"]) for line in lines}
        for pair, arm in planned(bench, part, pairs):
            if (pair, arm.name) not in done:
                walls = [x["cost"]["wall_seconds"] for x in lines if x["arm"] == arm.name]
                left += median(walls) if walls else part.seconds * arm.scale
    return left


def measure(bench: Bench, part: Part, arm: Arm, pair: int) -> Line:
    """One process; what it leaves behind is read and removed."""
    place = bench.place(part, arm, pair)
    shutil.rmtree(place.folder, ignore_errors=True)
    place.folder.mkdir(parents=True)
    load = os.getloadavg()[0]
    log = bench.work / "logs" / f"{place.folder.name}.log"
    cost: Cost = measured_command(part.command(arm, place), bench.environment(arm), log)
    figures = json.loads(place.out.read_text(encoding="utf-8")) if place.out.exists() else {}
    line = {
        "part": part.name,
        "arm": arm.name,
        "pair": pair,
        "key": bench.key(part, arm, pair),
        "cost": cost.to_json(),
        "figures": figures,
        "work": work_of(place.folder / "run"),
        "load_before": load,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    bench.log.append(line)
    shutil.rmtree(place.folder, ignore_errors=True)
    return line


if __name__ == "__main__":
    sys.exit(main())
