"""Every job that writes into a folder is refused at once where another is at work in it."""

import json
import threading

import pytest

from heldout.core.errors import UserError
from heldout.core.lock import alone_in
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.results.ensemble import SCHEMA
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.jobs.compressing.compress import compress
from heldout.jobs.counterfactual.counterfactual import counterfactual
from heldout.jobs.ensembles.distill import distill
from heldout.jobs.ensembles.ensemble import ensemble
from heldout.jobs.fitting.fit import fit, resume
from heldout.jobs.hyperfitting.hyperfit import hyperfit, resume_hyperfit
from heldout.jobs.kit.learning_curve import learning_curve
from heldout.jobs.kit.parts import Parts
from heldout.jobs.planning.capacity import capacity

WINDOWS = ("train.learning_rate=1e-3", "data.max_length=48", "eval.max_new_tokens=4")


@pytest.fixture(scope="module")
def files(english_text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    found = [" ".join(part.split())[:120] for part in english_text.split("\n\n")]
    texts = [text for text in found if len(text) == 120][:110]
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    for name, some in (("train", lines[:40]), ("validation", lines[40:75]), ("test", lines[75:])):
        (folder / f"{name}.jsonl").write_text("\n".join(some))
    (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 16}')
    return folder


@pytest.fixture
def held(tmp_path):
    """A folder in which another thread is at work, as another process would be."""
    folder, begun, over = tmp_path / "run", threading.Event(), threading.Event()

    def hold():
        with alone_in(folder):
            begun.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    yield folder
    over.set()
    thread.join()


def started(folder, **about):
    run = Run.create(folder, Recipe())
    rows = [Row(i, ({"role": "text", "content": "x"},), f"r{i}") for i in range(12)]
    for part in ("train", "validation"):
        run.write_rows(part, rows)
    run.write_json("environment.json", {"model": "m", "from_scratch": "", **about})
    run.write_json("data.json", {"mode": "split", "rows": {}})
    run.write_json("result.json", {"best_step": 9, "best_epoch": 1, "learning_rate": 1e-3})
    return folder


def taught(folder):
    """An ensemble beside ``folder``, whose student would lie in it."""
    ensemble = folder.parent / "ensemble"
    Run.open(started(ensemble / "member-0")).write_status("complete")
    member = {"run": "member-0", "seed": 0}
    about = {"schema": SCHEMA, "model": "m", "data": "d", "from_scratch": "", "members": [member]}
    (ensemble / "ensemble.json").write_text(json.dumps(about))
    return ensemble


def parts():
    rows = [Row(i, ({"role": "text", "content": "x"},), f"r{i}") for i in range(64)]
    return Parts(rows, rows[:32], [], "split", {"train": 64}, {"train": 64}, [])


JOBS = {
    "fit": lambda folder, model, files: fit(
        model, str(files / "rows.jsonl"), out=folder, recipe="full", settings=WINDOWS
    ),
    "resume": lambda folder, model, files: resume(started(folder)),
    "hyperfit": lambda folder, model, files: hyperfit(
        model,
        str(files / "train.jsonl"),
        out=folder,
        settings=(
            *(f"data.{part}={files / part}.jsonl" for part in ("validation", "test")),
            *("data.max_length=48", "hyperfit.context_tokens=8", "hyperfit.new_tokens=16"),
        ),
    ),
    "resume_hyperfit": lambda folder, model, files: resume_hyperfit(
        started(folder, job="hyperfit")
    ),
    "counterfactual": lambda folder, model, files: counterfactual(started(folder)),
    "ensemble": lambda folder, model, files: ensemble(
        model, str(files / "rows.jsonl"), out=folder, recipe="full"
    ),
    "distill": lambda folder, model, files: distill(taught(folder), out=folder),
    "compress": lambda folder, model, files: compress(
        str(files / "rows.jsonl"), model=model, recipe="full", out=folder
    ),
    "capacity": lambda folder, model, files: capacity([files / "config.json"], out=folder),
    "learning_curve": lambda folder, model, files: learning_curve(
        model, parts(), load_recipe("full", ["train.learning_rate=1e-3"]), folder=folder
    ),
}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_folder_in_use_is_refused(job, held, tiny_model_dir, files):
    with pytest.raises(UserError, match="is in use by another heldout command") as refused:
        job(held, str(tiny_model_dir), files)
    assert str(held) in str(refused.value)
