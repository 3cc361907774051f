"""Figures of ``fit_speed.py`` from its lines, and the record."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from fit_speed_parts import PARTS, SMOLLM2
from fit_speed_work import floor_flops
from record import write_record
from scipy.stats import t as student

Line = dict[str, Any]
Pairs = list[dict[str, Line]]  # the arms of each pair, by name
# name -> (part, arm, over which arm, what)
RATIOS = {
    "demo_cpu": ("demo", "new", "old", "cpu_seconds"),
    "demo_wall": ("demo", "new_auto", "old_best", "wall_seconds"),
    "chat_cpu": ("chat", "new", "old", "cpu_seconds"),
    "chat_wall": ("chat", "new_auto", "old_best", "wall_seconds"),
    "tail_cpu": ("tail", "new", "old", "cpu_seconds"),
    "shipped_cpu": ("shipped", "new", "old", "cpu_seconds"),
    "smollm2_lora_cpu": ("smollm2_lora", "new", "old", "cpu_seconds"),
    "smollm2_lora_bf16_cpu": ("smollm2_lora", "new_bf16", "old", "cpu_seconds"),
    "diagnose_cpu": ("diagnose", "new", "old", "cpu_seconds"),
    "check_100k_cpu": ("check_100k", "new", "old", "cpu_seconds"),
}
MEMORY = ("peak_memory", "peak_memory_alike")
SAME_LOGITS = 1e-2  # of their mean size: above it a packed row attends to another


@dataclass
class Summary:
    """Figures, rows of the record's table, and what is not there yet."""

    figures: dict[str, float] = field(default_factory=dict)
    table: list[Line] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def add_ratios(self, name: str, ratios: Sequence[float]) -> None:
        if not ratios:
            self.missing.append(name)
            return
        self.figures[name] = median(ratios)
        self.figures |= {f"{name}_low": min(ratios), f"{name}_high": max(ratios)}
        self.figures[f"{name}_pairs"] = len(ratios)


def summary(
    lines: Mapping[str, list[Line]],
    rates: Mapping[str, float],
    counted: Mapping[str, dict[str, Any]],
) -> Summary:
    """``lines`` by part; ``rates``: FLOPs a second; ``counted``: tokens by the name of the rows."""
    found = Summary(keys=sorted(line["key"] for each in lines.values() for line in each))
    pairs = {name: by_pair(each) for name, each in lines.items()}
    for name, (part, over, under, what) in RATIOS.items():
        found.add_ratios(name, ratios_of(pairs[part], over, under, what))
    for name in MEMORY:
        found.add_ratios(
            name,
            [
                pair["new"]["figures"]["training"] / pair["old"]["figures"]["training"]
                for pair in pairs[name]
                if {"new", "old"} <= pair.keys()
            ],
        )
    add_growth(found, pairs)
    add_repeats(found, pairs)
    add_losses(found, pairs)
    add_peer(found, pairs)
    add_floors(found, pairs, rates, counted)
    add_same_parts(found, pairs)
    for part, each in lines.items():
        found.table += [{"part": part, **without(line)} for line in each]
    found.table.append({"part": "rate", "flops_per_second_of_one_thread": dict(rates)})
    return found


def by_pair(lines: Sequence[Line]) -> Pairs:
    """In each, ``old_best`` is the old build at the faster of one and two threads."""
    found: dict[int, dict[str, Line]] = {}
    for line in lines:
        found.setdefault(line["pair"], {})[line["arm"]] = line
    for pair in found.values():
        olds = [pair[name] for name in ("old", "old_2") if name in pair]
        if olds:
            pair["old_best"] = min(olds, key=lambda line: line["cost"]["wall_seconds"])
    return [found[number] for number in sorted(found)]


def ratios_of(pairs: Pairs, over: str, under: str, what: str) -> list[float]:
    return [
        pair[over]["cost"][what] / pair[under]["cost"][what]
        for pair in pairs
        if {over, under} <= pair.keys()
    ]


def add_growth(found: Summary, pairs: Mapping[str, Pairs]) -> None:
    """CPU of the stage that looks for near duplicates, ten times the rows over the rows."""
    stage = "near duplicates"
    for arm, name in (("new", "near_duplicates_growth"), ("old", "near_duplicates_growth_old")):
        found.add_ratios(
            name,
            [
                many[arm]["figures"][stage] / few[arm]["figures"][stage]
                for few, many in zip(pairs["growth_10k"], pairs["growth_100k"], strict=False)
                if arm in few and arm in many
            ],
        )


def add_repeats(found: Summary, pairs: Mapping[str, Pairs]) -> None:
    """The share of rows that the old build lists as near duplicates and the new one lists, too."""
    for pair in pairs["check_100k"]:
        if {"new", "old"} <= pair.keys():
            new, old = (pair[name]["work"]["repeating"] for name in ("new", "old"))
            again = {row for each in new.values() for row in each}
            near = old["near_rows"]
            found.figures["near_duplicates_found_again"] = (
                sum(row in again for row in near) / len(near) if near else 1.0
            )
            found.figures["near_duplicates"] = len(new["near_rows"])
            found.figures["near_duplicates_old"] = len(near)
            return


def add_losses(found: Summary, pairs: Mapping[str, Pairs]) -> None:
    plain = [pair for pair in pairs["same_loss"] if {"new", "old"} <= pair.keys()]
    if plain:
        new, old = (plain[0][name]["work"]["test_nll_best"] for name in ("new", "old"))
        found.figures["loss_difference_no_noise"] = abs(new - old)
    else:
        found.missing.append("loss_difference_no_noise")
    for pair in pairs["shipped"]:
        if {"new", "old"} <= pair.keys():
            new, old = (pair[name]["work"]["test_nll_best"] for name in ("new", "old"))
            found.figures["shipped_gain"] = old - new
    noisy = [pair for pair in pairs["noise"] if {"new", "old"} <= pair.keys()]
    if not noisy:
        found.missing.append("loss_difference_noise")
        return
    new, old = (noisy[0][name]["figures"] for name in ("new", "old"))
    differences = [new[seed]["test_nll"] - old[seed]["test_nll"] for seed in old]
    error = stdev(differences) / math.sqrt(len(differences))
    half = float(student.ppf(0.975, len(differences) - 1)) * error
    found.figures |= {
        "loss_difference_noise": mean(differences),
        "loss_difference_noise_low": mean(differences) - half,
        "loss_difference_noise_high": mean(differences) + half,
        "loss_difference_noise_seeds": len(differences),
    }


def add_peer(found: Summary, pairs: Mapping[str, Pairs]) -> None:
    """Scored tokens a CPU second; both score the same ones, so the seconds alone decide."""
    for part, name in (("trl", "over_trl_packing"), ("trl_smollm2", "over_trl_packing_smollm2")):
        whole = [pair for pair in pairs[part] if {"new", "trl"} <= pair.keys()]
        found.add_ratios(
            name, [p["trl"]["figures"]["cpu"] / p["new"]["figures"]["cpu"] for p in whole]
        )
        for pair in whole[:1]:
            told = pair["trl"]["figures"]
            suffix = name.removeprefix("over_trl_packing")
            size = SAME_LOGITS * told["logit_size"]
            across = told["packed_logit_difference"] > size
            found.figures[f"trl_attends_across{suffix}"] = float(across)
            found.figures[f"scored_tokens_per_cpu_second_trl{suffix}"] = (
                told["scored_tokens"] / told["cpu"]
            )
            found.figures[f"scored_tokens_per_cpu_second{suffix}"] = (
                told["scored_tokens"] / pair["new"]["figures"]["cpu"]
            )
            found.notes.append(
                f"TRL's rows {'attend' if across else 'do not attend'} to each other under "
                f"{told['attention']} on this machine: logits of a packed row differ from those of "
                f"the row alone by {told['packed_logit_difference']:.1e} at most, by "
                f"{told['across_logit_difference']:.1e} where it does attend."
            )


def add_floors(
    found: Summary,
    pairs: Mapping[str, Pairs],
    rates: Mapping[str, float],
    counted: Mapping[str, dict[str, Any]],
) -> None:
    """Only of runs that are trainings; of `check` nothing is a product of matrices."""
    for part in PARTS:
        whole = [pair for pair in pairs[part.name] if {"new", "old"} <= pair.keys()]
        if not whole or part.data not in counted or not whole[0]["new"]["work"]:
            continue
        work = whole[0]["new"]["work"]
        flops = floor_flops(work, counted[part.data], part.factor)
        width = "smollm2" if part.model == SMOLLM2 else "embedded"
        old = median(pair["old"]["cost"]["cpu_seconds"] for pair in whole)
        seconds = flops / rates[f"{width}_float32"]
        found.figures[f"floor_{part.name}"] = seconds / old
        found.figures[f"floor_{part.name}_seconds"] = seconds
        if any("new_bf16" in pair for pair in whole):
            found.figures[f"floor_{part.name}_bf16"] = flops / rates[f"{width}_bfloat16"] / old


def add_same_parts(found: Summary, pairs: Mapping[str, Pairs]) -> None:
    """Both builds must have read the same rows; where the runs differ, the note says so.

    The loss of the base on the sealed test tells: hashes of rows are made in other ways by now.
    """
    for name, each in pairs.items():
        for pair in each:
            if not ({"new", "old"} <= pair.keys() and "test_nll_base" in pair["new"]["work"]):
                continue
            new, old = pair["new"]["work"], pair["old"]["work"]
            bases = [work["test_nll_base"] for work in (old, new)]
            assert abs(bases[0] - bases[1]) < 1e-3, f"{name}: not the same rows, {bases}"
            differing = [
                f"{key} {old[key]} and {new[key]}"
                for key in ("steps", "control_steps", "learning_rate", "best_step")
                if old[key] != new[key]
            ]
            if differing:
                found.notes.append(f"{name}: old and new differ in {', '.join(differing)}.")
                break


def without(line: Line) -> Line:
    """A row of the record's table."""
    kept = {key: line[key] for key in ("arm", "pair", "load_before", "time")}
    return {**kept, **line["cost"], **{f"figure {k}": v for k, v in line["figures"].items()}} | {
        key: value for key, value in line["work"].items() if key != "repeating"
    }


def recorded(found: Summary, note: str) -> Path:
    """Write the record; SystemExit where something is missing that this machine can measure."""
    missing = [name for name in found.missing if name != "smollm2_lora_bf16_cpu"]
    if missing:
        raise SystemExit(f"No record yet; not measured: {', '.join(missing)}")
    notes = list(found.notes)
    if "smollm2_lora_bf16_cpu" in found.missing:
        notes.append(
            "smollm2_lora_bf16_cpu is not available: this processor has neither amx_bf16 nor "
            "avx512_bf16."
        )
    return write_record(
        "fit_speed",
        found.figures,
        table=found.table,
        seeds=list(range(int(found.figures["loss_difference_noise_seeds"]))),
        data_sha256=hashlib.sha256(json.dumps(found.keys).encode()).hexdigest(),
        note=" ".join([*notes, note]).strip(),
    )
