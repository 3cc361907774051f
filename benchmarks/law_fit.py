"""A certified Chinchilla fit of 240 runs, 1,000 bootstraps of it, and a peer on the same runs.

python benchmarks/law_fit.py --peer PYTHON [--its-default]

PYTHON is an interpreter with the package `chinchilla` installed (its dependencies are its own).
The peer gets the grid of its README and the same objective, the mean Huber loss of log residuals.
"""

import argparse
import hashlib
import json
import os
import subprocess
import time
from multiprocessing import get_context

import numpy as np
from record import write_record

from heldout.scaling.chinchilla import Chinchilla
from heldout.scaling.fit import fit
from heldout.scaling.huber import DELTA, objective
from heldout.scaling.intervals import bootstrap, profile
from heldout.scaling.runs import Runs

TRUE = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
SEED = 0

PEER = """
import json, sys, time, tempfile, warnings
warnings.simplefilter("ignore")
import numpy as np
import pandas as pd
from chinchilla import Chinchilla
from chinchilla._metrics import asymmetric_mae, log_huber

entry = json.load(sys.stdin)
frame = pd.DataFrame({key: entry[key] for key in ("C", "N", "D", "loss")})
grid = dict(
    E=np.linspace(1, 2, 5), a=np.linspace(1, 10, 5), b=np.linspace(1, 10, 5),
    alpha=np.linspace(0.1, 0.7, 5), beta=np.linspace(0.1, 0.7, 5),
)
loss = {"log_huber": lambda y, p: log_huber(y, p, entry["delta"]),
        "its default": asymmetric_mae}[entry["loss_fn"]]
with tempfile.TemporaryDirectory() as folder:
    frame.to_csv(folder + "/df.csv", index=False)
    peer = Chinchilla(folder, param_grid=grid, loss_fn=loss, log_level=40)
    wall, cpu = time.perf_counter(), time.process_time()
    peer.fit(parallel=False)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print("RESULT" + json.dumps({"wall": wall, "cpu": cpu,
      "params": {key: float(value) for key, value in peer.params.items()}}))
"""


def synthetic_runs() -> Runs:
    """240 runs of 16 sizes and 15 token counts that follow the law with 1 % noise."""
    N, D = (
        axis.ravel()
        for axis in np.meshgrid(np.geomspace(4e7, 1.6e10, 16), np.geomspace(5e8, 3e11, 15))
    )
    loss = Chinchilla().predict(Runs.of(N, D, np.ones(240)), TRUE)
    return Runs.of(N, D, loss * np.exp(0.01 * np.random.default_rng(SEED).normal(size=240)))


def resample(seed: int) -> np.ndarray:
    return bootstrap(fit(Chinchilla(), synthetic_runs(), num_starts=4), 500, seed)


def ask_peer(python: str, runs: Runs, loss_fn: str) -> dict:
    entry = {
        "C": runs.flops.tolist(),
        "N": runs.N.tolist(),
        "D": runs.D.tolist(),
        "loss": runs.loss.tolist(),
        "delta": DELTA,
        "loss_fn": loss_fn,
    }
    done = subprocess.run(
        [python, "-c", PEER],
        input=json.dumps(entry),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.rpartition("RESULT")[2])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", default="", help="an interpreter that has chinchilla")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--its-default", action="store_true", help="the peer's own loss too")
    options = parser.parse_args()
    runs, law = synthetic_runs(), Chinchilla()
    fit(law, runs)
    cpu, wall = [], []
    for _ in range(7):
        started, started_cpu = time.perf_counter(), time.process_time()
        found = fit(law, runs)
        cpu.append(time.process_time() - started_cpu)
        wall.append(time.perf_counter() - started)
    started = time.perf_counter()
    with get_context("spawn").Pool(options.cores) as pool:
        values = np.concatenate(pool.map(resample, range(2), chunksize=1))
    seconds_bootstrap = time.perf_counter() - started
    started = time.perf_counter()
    ranges = profile(found)
    seconds_profile = time.perf_counter() - started
    figures = {
        "seconds_certified": float(np.median(cpu)),
        "seconds_certified_wall": float(np.median(wall)),
        "objective": found.objective,
        "num_starts": found.certificate.num_starts,
        "num_same": found.certificate.num_same,
        "gradient_norm": found.certificate.gradient_norm,
        "bootstrap_1000_seconds": seconds_bootstrap,
        "profile_seconds": seconds_profile,
    }
    table = [{"fit": "heldout", "parameters": found.parameters, "objective": found.objective}]
    table.append({"fit": "profile", **{name: [r.low, r.high] for name, r in ranges.items()}})
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    table.append({"fit": "bootstrap", "low": low.tolist(), "high": high.tolist()})
    if options.peer:
        for loss_fn in ("log_huber", "its default")[: 1 + options.its_default]:
            theirs = ask_peer(options.peer, runs, loss_fn)
            values = law.values({name: theirs["params"][name] for name in law.names})
            their_objective = float(objective(law, runs, values))
            table.append({"fit": f"chinchilla, {loss_fn}", **theirs, "objective": their_objective})
            if loss_fn == "log_huber":
                figures["chinchilla_seconds"] = theirs["cpu"]
                figures["chinchilla_objective"] = their_objective
                figures["speedup_over_chinchilla"] = theirs["cpu"] / figures["seconds_certified"]
                figures["objective_ratio"] = found.objective / their_objective
            else:
                figures["objective_ratio_default"] = found.objective / their_objective
    data = hashlib.sha256(np.stack([runs.N, runs.D, runs.loss]).tobytes()).hexdigest()
    path = write_record(
        "law_fit",
        figures,
        table=table,
        seeds=[SEED],
        data_sha256=data,
        command="python benchmarks/law_fit.py --peer PYTHON",
        note="Seconds are processor time of one thread; both fit the same 240 synthetic runs. The "
        "peer is chinchilla 0.2.0 without its process pool, with the grid of its README.",
    )
    print(json.dumps(figures, indent=1), path)


if __name__ == "__main__":
    main()
