"""The main job as a function."""

from pathlib import Path

import heldout


def fine_tune(model: str, data: str, out: Path) -> float:
    result = heldout.fit(
        model,
        data,
        out=out,
        recipe="full",
        settings=["train.learning_rate=1e-3", "train.max_epochs=2", "eval.num_samples=1"],
    )
    print(result.verdict.headline)
    return result.run.read_json("result.json")["figures"]["test_nll_best"]
