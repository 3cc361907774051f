"""The demonstration: the embedded model on World Factbook answers, with the control arm beside it.

Nothing is downloaded: the model is package data, the rows come from an installed package.
"""

import json
from importlib import resources
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.progress import Progress
from heldout.data.factbook import question_answer_rows
from heldout.jobs.fit import FitResult, default_folder, fit
from heldout.lm.gguf import cache_folder


def demo_model() -> str:
    """Folder of the embedded model."""
    folder = Path(str(resources.files("heldout") / "assets" / "demo_model"))
    if not (folder / "model.safetensors").is_file():
        raise UserError(f"{folder} holds no weights: reinstall heldout.")
    return str(folder)


def demo(
    *,
    out: str | Path | None = None,
    settings: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> FitResult:
    """Fit the embedded model with ``recipes/demo.toml``; about four minutes on two cores."""
    rows_folder = cache_folder() / "world-factbook"
    rows_folder.mkdir(parents=True, exist_ok=True)
    for part, rows in question_answer_rows().items():
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        (rows_folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return fit(
        demo_model(),
        str(rows_folder / "train.jsonl"),
        out=out or default_folder("embedded-model", "world-factbook"),
        recipe="demo",
        settings=[
            f"data.validation={rows_folder / 'validation.jsonl'}",
            f"data.test={rows_folder / 'test.jsonl'}",
            *settings,
        ],
        progress=progress,
    )
