"""Nothing in a run folder is run when the run goes on: a checkpoint's files are read as numbers."""

import pickle
import random
import shutil
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from heldout.core.errors import Interrupted, UserError
from heldout.core.interrupt import ask_to_stop
from heldout.core.progress import Progress
from heldout.core.run import Run
from heldout.jobs.fitting.fit import fit, resume

FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "heldout_state.pt", "training_args.bin")


class StopAtStep(Progress):
    """Asks to stop once training has done so many steps."""

    def __init__(self, step):
        self.left, self.name = step, ""

    @contextmanager
    def stage(self, name, total=None):
        self.name = name
        yield

    def advance(self, num=1, text=""):
        if self.name == "training":
            self.left -= num
            if self.left == 0:
                ask_to_stop()


class Touches:
    """Unpickled, it makes a file: what a stranger's checkpoint could do instead is not here."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def stopped(tiny_model_dir, data, tmp_path_factory):
    """A run that was stopped in its second step, with averages and so with every kind of state."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    with pytest.raises(Interrupted):
        fit(
            str(tiny_model_dir),
            data,
            out=folder,
            recipe="full",
            settings=[
                "train.learning_rate=3e-3",
                "train.max_epochs=1",
                "train.checkpoint_minutes=0",
                "eval.max_train_rows=8",
                "eval.max_recital_rows=8",
                "eval.num_samples=0",
                "eval.max_new_tokens=4",
                "data.max_length=32",
            ],
            progress=StopAtStep(2),
        )
    (checkpoint,) = folder.glob("checkpoints/checkpoint-*")
    assert {path.name for path in checkpoint.iterdir()} >= set(FILES)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("form", ["of torch", "bare", "cut short"])
@pytest.mark.parametrize("name", FILES)
def test_no_pickle_of_a_checkpoint_is_run(name, form, stopped, tmp_path):
    run = Run(shutil.copytree(stopped, tmp_path / "run"))
    marker = tmp_path / "was_run"
    (checkpoint,) = run.folder.glob("checkpoints/checkpoint-*")
    path = checkpoint / name
    if form == "of torch":
        torch.save({"state": Touches(marker)}, path)
        assert zipfile.is_zipfile(path)
    elif form == "bare":
        path.write_bytes(pickle.dumps(Touches(marker), protocol=2))
    else:
        path.write_bytes(path.read_bytes()[: random.Random(0).randrange(20, 200)])
    if name == "training_args.bin":  # that is not read at all
        resume(run.folder)
    else:
        with pytest.raises(UserError) as refused:
            resume(run.folder)
        what = (
            "was cut short" if form == "cut short" else "holds more than numbers, and was not run"
        )
        assert f"A file in {checkpoint} {what}" in str(refused.value)
    assert not marker.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "trainer_state.json"])
def test_a_cut_file_of_a_checkpoint_is_named(name, stopped, tmp_path):
    run = Run(shutil.copytree(stopped, tmp_path / "run"))
    (checkpoint,) = run.folder.glob("checkpoints/checkpoint-*")
    (checkpoint / name).write_bytes((checkpoint / name).read_bytes()[:100])
    with pytest.raises(UserError, match=f"A file in {checkpoint} was cut short"):
        resume(run.folder)


@pytest.mark.slow
def test_without_the_folder_the_training_begins_anew(stopped, tmp_path):
    run = Run(shutil.copytree(stopped, tmp_path / "run"))
    (checkpoint,) = run.folder.glob("checkpoints/checkpoint-*")
    shutil.rmtree(checkpoint)
    assert resume(run.folder).run.status["state"] == "complete"
    steps = [entry["step"] for entry in run.history()]
    assert steps == sorted(set(steps))
    assert len(run.test_openings) == 1
