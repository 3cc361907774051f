"""How many times the data a loss is worth, and the record of all of it."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from record import write_record
from times_data.held import Held
from times_data.settings import SEEDS, TIMES, WIDTH, Setting, lines_of, setting_at, treated_setting
from times_data.speeches import Data
from times_data.stages import (
    SELECTED,
    baseline,
    kept_seeds,
    regularized,
    seed_paths,
    selected_paths,
    trained_pool,
)
from times_data.students import STUDENTS, student_path
from times_data.trainings import new_model, weights_path

from heldout.scaling.ensemble import Asymptote, asymptote, ensemble_losses, mixture_nats
from heldout.search.coordinate import CoordinateSearch

# G groups, N scored tokens, K members

RESAMPLES = 2000
NOTE = (
    "Times the data: where the unregularized baseline's own curve, L = E + B / D^beta through its "
    "losses at 1, 2 and 4 times U, is as low as the treatment; each of the three is tuned on "
    "validation as far as its certificate in the table says, and a baseline that is not certified "
    "flatters the treatments; "
    "interpolated, and never above largest_data. Intervals resample the test speeches, for the "
    "baselines and the regularized model the seeds too; the ensemble's members and the student "
    "are taken as they are."
)


def times_data(loss: float, sizes: list[float], losses: list[float]) -> float:
    """Where the baseline's curve through (sizes, losses) is as low as ``loss``; never beyond it.

    Sizes rise and losses fall. A loss between two sizes is placed on L = E + B / D^beta through
    these two and the one before them (at the start, after them).
    """
    if loss >= losses[0]:
        return sizes[0]
    if loss <= losses[-1]:
        return sizes[-1]
    segment = next(k for k in range(len(sizes)) if loss > losses[k + 1])
    first = min(max(segment - 1, 0), len(sizes) - 3)
    (d1, d2, d3), (l1, l2, l3) = sizes[first : first + 3], losses[first : first + 3]

    def share(beta: float, size: float) -> float:
        """Of the way from the first loss to the third; log-linear as beta goes to 0."""
        if abs(beta) < 1e-9:
            return math.log(size / d1) / math.log(d3 / d1)
        return (d1**-beta - size**-beta) / (d1**-beta - d3**-beta)

    beta = bisected(lambda beta: share(beta, d2) - (l1 - l2) / (l1 - l3), -8.0, 8.0)
    wanted = (l1 - loss) / (l1 - l3)
    return bisected(lambda size: share(beta, size) - wanted, d1, d3)


def bisected(rising: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def report(data: Data, validation: Held) -> None:
    """The only stage that reads the test speeches."""
    held = Held("test", data)
    tokens_G = np.unique(held.groups_N, return_counts=True)[1]
    searches: dict[str, CoordinateSearch] = {}
    conditions: dict[str, np.ndarray] = {}  # seeds or one, by groups: summed nats
    trained: dict[str, tuple[Setting, float]] = {}
    paths = {"regularized": seed_paths()}

    def nats_N(path: Path) -> np.ndarray:
        return held.nats(torch.load(path, weights_only=True))

    for times in TIMES:
        name = f"baseline_{times}"
        searches[name] = baseline(times, data, validation, trains=False)
        chosen = searches[name].chosen
        assert chosen is not None
        trained[name] = setting_at(Setting(times=times), chosen.point)
        paths[name] = kept_seeds(*trained[name])
        conditions[name] = np.stack([held.losses(nats_N(path)).nll_nats_D for path in paths[name]])
    searches["regularized"] = regularized(data, validation, trains=False)
    trained["regularized"] = treated_setting({})
    seeds = ensemble_losses(np.stack([nats_N(path) for path in seed_paths()]), held.groups_N)
    conditions["regularized"] = np.stack([seeds.nats_SG[k] for k in range(SEEDS)])
    conditions["seeds"] = seeds.nats_G(SEEDS)[None]
    conditions["seeds_limit"] = seeds.fitted_nats_G()[None]
    limit = asymptote(seeds)
    assert isinstance(limit, Asymptote)
    mixed_N = mixture_nats(np.stack([nats_N(path) for path in selected_paths()]))
    conditions["ensemble"] = held.losses(mixed_N).nll_nats_D[None]
    students = {name: each for name, each in STUDENTS.items() if student_path(each).exists()}
    for name, each in students.items():
        conditions[f"student_{name}"] = held.losses(nats_N(student_path(each))).nll_nats_D[None]

    loss = {
        name: float(sums_SG.mean(0).sum() / tokens_G.sum()) for name, sums_SG in conditions.items()
    }
    sizes = [data.tokens(times) / data.tokens(1) for times in TIMES]
    treatments = [name for name in conditions if not name.startswith("baseline")]
    resamples = [measured(loss, sizes, treatments)]
    generator = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        drawn_G = np.bincount(generator.integers(len(tokens_G), size=len(tokens_G)))
        drawn_G = np.pad(drawn_G, (0, len(tokens_G) - len(drawn_G)))
        again = {}
        for name, sums_SG in conditions.items():
            mean_G, num = sums_SG.mean(0), len(sums_SG)
            if num > 1:  # the mean of num draws varies (num - 1) / num as much as it should
                moved_G = sums_SG[generator.integers(num, size=num)].mean(0) - mean_G
                mean_G = mean_G + math.sqrt(num / (num - 1)) * moved_G
            again[name] = float(mean_G @ drawn_G / (tokens_G @ drawn_G))
        resamples.append(measured(again, sizes, treatments))
    figures = dict(resamples[0])
    for name in resamples[0]:
        low, high = np.quantile([each[name] for each in resamples[1:]], [0.025, 0.975])
        figures |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    for suffix in ("", "_low", "_high"):
        figures[f"times_data{suffix}"] = figures[f"times_data_ensemble{suffix}"]
    if students:
        on_validation = {
            name: validation_loss(student_path(students[name]), validation) for name in students
        }
        best = min(students, key=on_validation.__getitem__)
        for suffix in ("", "_low", "_high"):
            figures[f"times_data_student{suffix}"] = figures[f"times_data_student_{best}{suffix}"]
            figures[f"distilled_share{suffix}"] = figures[f"share_student_{best}{suffix}"]
            figures[f"distilled_share_of_ensembling{suffix}"] = figures[
                f"share_of_ensembling_student_{best}{suffix}"
            ]
    figures |= {f"nats_per_token_{name}": value for name, value in loss.items()}
    figures |= {
        "largest_data": sizes[-1],
        "tokens_u": data.tokens(1),
        "parameters": sum(p.numel() for p in new_model(WIDTH, 0).parameters()),
        "members": len(selected_paths()),
        "baseline_seeds": min(len(conditions[f"baseline_{times}"]) for times in TIMES),
        "seeds": SEEDS,
        "seeds_limit_low": limit.limit.interval.low,
        "seeds_limit_high": limit.limit.interval.high,
        "test_speeches": len(tokens_G),
        "test_tokens": int(tokens_G.sum()),
        "core_minutes": sum(json.loads(line)["seconds"] for line in lines_of("seconds")) / 60,
    }
    table = [
        {"arm": name, "times": setting.times, "epochs": epochs, **asdict(setting)}
        | {
            "certificate": searches[name].to_json(),
            "validation_of_seeds": [validation_loss(path, validation) for path in paths[name]],
        }
        for name, (setting, epochs) in trained.items()
    ]
    table += [{"arm": "ensemble", **json.loads(SELECTED.read_text())}]
    table += [
        {
            "arm": "pool",
            "models": [
                changes
                | {
                    "validation": validation_loss(
                        weights_path(*treated_setting(changes)), validation
                    )
                }
                for changes in trained_pool()
            ],
        }
    ]
    table += [{"arm": f"student_{name}", **asdict(each)} for name, each in students.items()]
    path = write_record(
        "data_efficiency",
        figures,
        table=table,
        seeds=list(range(SEEDS)),
        data_sha256=data.sha256,
        command="python benchmarks/data_efficiency.py --report",
        note=NOTE,
    )
    print(json.dumps(figures, indent=1), path)


def validation_loss(path: Path, validation: Held) -> float:
    nats_N = validation.nats(torch.load(path, weights_only=True))
    return validation.losses(nats_N).nats_per_token


def measured(loss: dict[str, float], sizes: list[float], treatments: list[str]) -> dict[str, float]:
    curve = [loss[f"baseline_{times}"] for times in TIMES]
    found = {f"times_data_{name}": times_data(loss[name], sizes, curve) for name in treatments}
    gain = curve[0] - loss["ensemble"]
    for name in treatments:
        if name.startswith("student_"):
            found[f"share_{name}"] = (curve[0] - loss[name]) / gain
            found[f"share_of_ensembling_{name}"] = (loss["regularized"] - loss[name]) / (
                loss["regularized"] - loss["ensemble"]
            )
    return found
