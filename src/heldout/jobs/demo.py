"""The demonstration: the embedded model on World Factbook answers, with the control beside it.

Nothing is downloaded: the model is package data, the rows come from an installed package.
"""

import json
from pathlib import Path

from heldout.core.progress import Progress
from heldout.data.factbook import question_answer_rows
from heldout.jobs.fitting.fit import FitResult, fit
from heldout.jobs.kit.run_folder import default_folder
from heldout.lm.gguf import cache_folder

MODEL = "package:heldout"  # the embedded model, for --model as well


def demo(
    *,
    out: str | Path | None = None,
    settings: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> FitResult:
    """Fit the embedded model with ``recipes/demo.toml``; about three minutes on one core."""
    rows_folder = cache_folder() / "world-factbook"
    rows_folder.mkdir(parents=True, exist_ok=True)
    for part, rows in question_answer_rows().items():
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        (rows_folder / f"world_factbook_{part}.jsonl").write_text(
            "\n".join(lines) + "\n", encoding="utf-8"
        )
    return fit(
        MODEL,
        str(rows_folder / "world_factbook_train.jsonl"),
        out=out or default_folder("embedded-model", "world-factbook"),
        recipe="demo",
        settings=[
            *(
                f"data.{part}={rows_folder / f'world_factbook_{part}.jsonl'}"
                for part in ("validation", "test")
            ),
            *settings,
        ],
        progress=progress,
    )
