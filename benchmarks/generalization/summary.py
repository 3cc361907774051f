"""Figures of the headline from its lines; ``run.py`` says what they mean and what they must be.

python benchmarks/generalization/summary.py [--fit recipe:NAME] [--partly] [--record]
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from record import write_record

from generalization.arms import PEERS
from generalization.work import (
    BASE,
    CELLS,
    DEFAULT_ARMS,
    FIT,
    GRID,
    GRID_CELLS,
    HONEST,
    SMOLLM2_ARMS,
    SMOLLM2_CELLS,
    Cell,
    Place,
    items_of,
)
from heldout.core.holm import holm
from heldout.core.stats import RatioEstimate, paired_difference

TRIALS, TINY_TRIALS = "trials:10", "trials:2"
LEVEL = 0.05
LEAST_MEMORIZED = 10  # rows of a peer: with fewer there is nothing to halve

Line = dict[str, Any]
Losses = list[np.ndarray]  # of the test documents in nats, by seed


@dataclass(frozen=True)
class Measured:
    """A cell: its test documents, and the lines of each arm by seed."""

    name: str
    tokens: np.ndarray
    groups: np.ndarray
    lines: Mapping[str, list[list[Line]]]  # arm -> seed -> its trainings

    def losses(self, arm: str, which: str) -> Losses:
        """Of an arm with one training a seed."""
        return [np.array(line["kept"][which]["nll"]) for (line,) in self.lines[arm]]

    def memorized(self, arm: str, which: str) -> float:
        """Training rows, mean over seeds."""
        return float(np.mean([line["kept"][which]["memorized"] for (line,) in self.lines[arm]]))

    def honest(self) -> Losses:
        """Of the rate with the lowest validation loss of each seed."""
        chosen = [min(ended(several), key=lowest) for several in self.lines[HONEST]]
        return [np.array(line["kept"]["best"]["nll"]) for line in chosen]

    def honest_with_temperature(self) -> Losses:
        chosen = [
            min(ended(several), key=lambda line: line["temperature"]["validation"])
            for several in self.lines[HONEST]
        ]
        return [np.array(line["temperature"]["nll"]) for line in chosen]

    @property
    def has_temperature(self) -> bool:
        """Not so with adapters, which cannot hold one."""
        return all("temperature" in x for several in self.lines[HONEST] for x in ended(several))

    def difference(self, first: Losses, second: Losses) -> RatioEstimate:
        """Mean over seeds of first minus second, nats per token; the interval is over groups."""
        means = (np.mean(losses, axis=0) for losses in (first, second))
        return paired_difference(*means, self.tokens, self.groups)

    def seconds(self, arm: str) -> float:
        return sum(line["seconds"] for several in self.lines[arm] for line in several)


@dataclass
class Summary:
    """Figures, rows of the record's table, and what is not there yet."""

    figures: dict[str, float] = field(default_factory=dict)
    table: list[Line] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def ended(lines: Sequence[Line]) -> list[Line]:
    """Those that did not diverge."""
    return [line for line in lines if "diverged" not in line]


def lowest(line: Line, name: str = "best") -> float:
    """The lowest validation loss of a training."""
    return float(min(line["validation"][name]))


def outcomes(estimates: Mapping[str, RatioEstimate]) -> dict[str, str]:
    """By cell, whether fit has ``won``, ``lost``, or neither (``open``), after Holm over cells."""
    adjusted = holm({name: estimate.p_value for name, estimate in estimates.items()})
    return {
        name: "open" if adjusted[name] >= LEVEL else ("won" if estimate.value < 0 else "lost")
        for name, estimate in estimates.items()
    }


def compared(
    found: Summary, comparator: str, differences: Mapping[str, RatioEstimate]
) -> dict[str, str]:
    """Outcomes of fit beside one comparator, with their rows of the table."""
    results = outcomes(differences)
    for cell, estimate in differences.items():
        interval = estimate.interval
        found.table.append(
            {
                "comparator": comparator,
                "cell": cell,
                "fit_minus": estimate.value,
                "low": interval.low,
                "high": interval.high,
                "p_value": estimate.p_value,
                "num_groups": estimate.num_groups,
                "outcome": results[cell],
            }
        )
    return results


def share(results: Mapping[str, str], outcome: str) -> float:
    return sum(each == outcome for each in results.values()) / len(results)


def summary(
    cells: Sequence[Measured],
    grid_cells: Sequence[Measured],
    fit: str = FIT,
    trials: str = TRIALS,
) -> Summary:
    """``cells``: where all default arms are measured; ``grid_cells``: with grid and trials, too."""
    found = Summary()
    if not cells:
        found.missing.append("any cell with all of its arms")
        return found
    found.figures["num_cells"] = len(cells)
    if len(cells) < len(CELLS) + len(SMOLLM2_CELLS):
        whole = {cell.name for cell in cells}
        others = [cell.name for cell in (*CELLS, *SMOLLM2_CELLS) if cell.name not in whole]
        found.missing.append(f"cells {', '.join(others)}")
    own = {cell.name: cell.losses(fit, "best") for cell in cells}
    add_peers(found, cells, own)
    add_honest(found, cells, own, fit)
    add_grid(found, grid_cells, trials)
    add_memorized(found, cells, fit)
    return found


def add_peers(found: Summary, cells: Sequence[Measured], own: Mapping[str, Losses]) -> None:
    shares = {}
    for peer in PEERS:
        for which in ("last", "best"):
            name = f"{peer.name}_{which}"
            differences = {
                cell.name: cell.difference(own[cell.name], cell.losses(peer.name, which))
                for cell in cells
                if peer.name in cell.lines
            }
            shares[name] = share(compared(found, name, differences), "won")
    found.figures["share_cells_won"] = min(shares.values())
    found.figures |= {f"share_cells_won_{name}": each for name, each in shares.items()}


def add_honest(
    found: Summary, cells: Sequence[Measured], own: Mapping[str, Losses], fit: str
) -> None:
    baselines = {
        "honest": {cell.name: cell.honest() for cell in cells},
        "temperature": {
            cell.name: cell.honest_with_temperature() for cell in cells if cell.has_temperature
        },
    }
    for name, losses in baselines.items():
        differences = {
            cell.name: cell.difference(own[cell.name], losses[cell.name])
            for cell in cells
            if cell.name in losses
        }
        results = compared(found, name, differences)
        found.figures[f"share_cells_won_{name}"] = share(results, "won")
        found.figures[f"cells_lost_{name}"] = sum(x == "lost" for x in results.values())
        for cell, estimate in differences.items():
            found.figures[f"gain_{name}_{cell}"] = -estimate.value
    times = {cell.name: cell.seconds(fit) / cell.seconds(HONEST) for cell in cells}
    found.figures["time_share"] = max(times.values())
    found.figures["time_share_median"] = float(np.median(list(times.values())))


def add_grid(found: Summary, cells: Sequence[Measured], trials: str = TRIALS) -> None:
    """Gains per token over the honest baseline, added up over the cells."""
    if not cells:
        found.missing += ["grid_gain_share", "cost_share"]
        return
    gains = {GRID: 0.0, trials: 0.0}
    tokens = {GRID: 0, trials: 0}
    for cell in cells:
        honest = cell.honest()
        candidates = [
            (lowest(line, name), line["kept"][name]["nll"])
            for line in ended(cell.lines[GRID][0])
            for name in line["kept"]
        ]
        of_grid = [np.array(min(candidates, key=lambda pair: pair[0])[1])]
        gains[GRID] += cell.difference(honest, of_grid).value
        gains[trials] += cell.difference(honest, cell.losses(trials, "best")).value
        for arm in tokens:
            tokens[arm] += sum(line["tokens"] for line in cell.lines[arm][0])
    found.figures["grid_gain"] = gains[GRID] / len(cells)
    found.figures["trials_gain"] = gains[trials] / len(cells)
    if gains[GRID] > 0:
        found.figures["grid_gain_share"] = gains[trials] / gains[GRID]
    else:
        found.missing.append("grid_gain_share: the grid gains nothing over the honest baseline")
    found.figures["cost_share"] = tokens[trials] / tokens[GRID]


def add_memorized(found: Summary, cells: Sequence[Measured], fit: str) -> None:
    shares = []
    for cell in cells:
        own = cell.memorized(fit, "best")
        for peer in (each for each in PEERS if each.name in cell.lines):
            for which in ("last", "best"):
                theirs = cell.memorized(peer.name, which)
                if theirs >= LEAST_MEMORIZED:
                    shares.append(own / theirs)
                    found.table.append(
                        {
                            "comparator": f"{peer.name}_{which}",
                            "cell": cell.name,
                            "memorized": theirs,
                            "memorized_fit": own,
                        }
                    )
    if shares:
        found.figures["memorized_share"] = max(shares)
    else:
        found.missing.append(f"memorized_share: no peer memorizes {LEAST_MEMORIZED} rows")


def measured(
    place: Place, cells: Sequence[Cell], arms: Sequence[str], partly: bool = False
) -> list[Measured]:
    """The cells whose seeds are all there, of those seeds that have all of these arms.

    ``partly``: with the seeds that are there, one or more.
    """
    by_key = {line["key"]: line for line in place.lines()}
    found = []
    for cell in cells:
        seeds: dict[int, dict[str, list[str]]] = {}
        for item in items_of(arms, [cell], place.tiny):
            seeds.setdefault(item.seed, {}).setdefault(item.arm, []).append(place.key(item))
        planned = [of_seed for of_seed in seeds.values() if of_seed.keys() == set(arms)]
        whole = [
            {arm: [by_key[key] for key in keys] for arm, keys in of_seed.items()}
            for of_seed in planned
            if all(key in by_key for keys in of_seed.values() for key in keys)
        ]
        if whole and (partly or len(whole) == len(planned)):
            base = whole[0][BASE][0]
            lines = {arm: [of_seed[arm] for of_seed in whole] for arm in arms}
            tokens = np.array(base["tokens"])
            check_documents(cell, tokens, lines)
            found.append(Measured(cell.name, tokens, np.array(base["groups"]), lines))
    return found


def check_documents(cell: Cell, tokens: np.ndarray, lines: Mapping[str, list[list[Line]]]) -> None:
    """All arms must have scored the same tokens of the same documents."""
    for arm, seeds in lines.items():
        for line in (line for several in seeds for line in several):
            for kept in line["kept"].values():
                same = len(kept["nll"]) == len(tokens)
                same &= kept.get("test_tokens", tokens.sum()) == tokens.sum()
                assert same, f"{cell.name}, {arm}: not the documents of the base model"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", default=".cache/generalization", help="of the lines")
    parser.add_argument("--fit", default=FIT, help="the arm that is compared, as recipe:NAME")
    parser.add_argument("--partly", action="store_true", help="also cells without all seeds")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--record", action="store_true", help="write the record")
    parser.add_argument("--note", default="", help="put into the record, such as other load")
    options = parser.parse_args()
    work = Path(options.folder).resolve()
    place = Place(work / "tiny" if options.tiny else work, options.tiny)
    arms = list(dict.fromkeys([*DEFAULT_ARMS, options.fit]))
    trials = TINY_TRIALS if options.tiny else TRIALS
    partly = options.tiny or options.partly
    cells = measured(place, CELLS[:1] if options.tiny else CELLS, arms, partly)
    grid_cells = measured(
        place,
        GRID_CELLS[:1] if options.tiny else GRID_CELLS,
        (BASE, HONEST, GRID, trials),
    )
    others = [] if options.tiny else measured(place, SMOLLM2_CELLS, SMOLLM2_ARMS)
    found = summary([*cells, *others], grid_cells, options.fit, trials)
    print(json.dumps(found.figures, indent=1))
    for name in found.missing:
        print(f"not measured: {name}")
    if not options.record:
        return
    if partly or len(cells) < len(CELLS) or len(grid_cells) < 2:
        raise SystemExit("No record yet: it takes all cells with all seeds, and the grid's two.")
    rows = sorted({place.key(item) for item in items_of(arms, CELLS)})
    print(
        write_record(
            "generalization",
            found.figures,
            table=found.table,
            seeds=[0, 1, 2],
            data_sha256=hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
            note=(
                "Intervals are over groups of the sealed test and conditional on the seeds. Not "
                f"measured: {'; '.join(found.missing) or 'nothing'}. {options.note}"
            ).strip(),
        )
    )


if __name__ == "__main__":
    main()
