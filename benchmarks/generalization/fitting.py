"""``heldout fit`` as an arm: its losses on the test documents, its time and its trained tokens."""

import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import Trainer

from generalization.training import Found, rounded
from heldout.core.errors import Interrupted
from heldout.core.progress import Progress
from heldout.core.run import Run
from heldout.jobs.evidence.measure import load_memorization
from heldout.jobs.fitting.fit import fit, resume
from heldout.lm.tokenize import IGNORED

SETTINGS = (
    "data.group=group",
    "train.threads=1",
    "train.side_by_side=1",
    "eval.num_samples=0",
    "eval.max_recital_rows=1000",
)


class UntilTest(Progress):
    """Notes the CPU seconds at which the sealed test begins: what comes after is no training."""

    def __init__(self) -> None:
        self.seconds: float | None = None

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        if name == "sealed test" and self.seconds is None:
            self.seconds = time.process_time()
        yield


def fitted(
    recipe: str,
    settings: Sequence[str],
    model: str,
    data: Path,
    seed: int,
    folder: Path,
    seconds_left: float,
) -> Found | None:
    """As ``training.trained``, with the checkpoint that fit keeps as ``best``.

    ``recipe`` empty: fit's default. ``seconds``: of CPU until the sealed test is opened, the search
    included. None where ``seconds_left`` of the clock were not enough; the next call goes on.
    """
    spent = folder.with_suffix(".spent")  # of pieces that were stopped; none after a kill
    was_stopped = spent.exists()
    earlier = [float(x) for x in spent.read_text().split()] if was_stopped else [0.0, 0.0]
    begin = time.process_time()
    progress = UntilTest()
    try:
        with counted_tokens() as tokens, alarm(seconds_left):
            if was_stopped:
                run = resume(folder, progress=progress).run
            else:
                shutil.rmtree(folder, ignore_errors=True)
                run = fit(
                    model,
                    str(data / "train.jsonl"),
                    out=folder,
                    settings=(
                        *SETTINGS,
                        f"data.validation={data / 'validation.jsonl'}",
                        f"data.test={data / 'test.jsonl'}",
                        f"train.seed={seed}",
                        *settings,
                    ),
                    progress=progress,
                    **({"recipe": recipe} if recipe else {}),
                ).run
    except Interrupted:
        seconds = earlier[0] + time.process_time() - begin
        spent.write_text(f"{seconds} {earlier[1] + sum(tokens)}")
        return None
    until = progress.seconds or begin
    found = {
        "seconds": earlier[0] + until - begin,
        "tokens": round(earlier[1] + sum(tokens)),
        **read_run(run),
    }
    spent.unlink(missing_ok=True)
    shutil.rmtree(folder)
    return found


def read_run(run: Run) -> Found:
    """What a finished run says of its two checkpoints."""
    result = run.read_json("result.json")
    history = run.history()
    memorization = load_memorization(run)
    kept = {}
    for name in ("last", "best"):
        losses = run.losses(name, "test")
        assert losses is not None, f"{run.folder} has no losses of the test"
        memorized = memorization[name, "train"]
        kept[name] = {
            "nll": rounded(losses.nll_nats_D),
            "test_tokens": int(losses.num_tokens_D.sum()),
            "memorized": int(memorized.memorized_D.sum()),
            "long_enough": len(memorized),
        }
    best = run.losses("best", "validation")
    assert best is not None
    return {
        "steps": result["last_step"],
        "epochs": result["last_epoch"],
        "rate": result["learning_rate"],
        "validation": {
            "steps": [entry["step"] for entry in history],
            "best": [round(best.nats_per_token, 6)],
        },
        "kept": kept,
    }


@contextmanager
def counted_tokens() -> Iterator[list[int]]:
    """Scored tokens of each batch that any Trainer of this process trains on."""
    found: list[int] = []
    original = Trainer.training_step

    def counted(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(int((inputs["labels"] != IGNORED).sum()))
        return original(self, model, inputs, *args, **kwargs)

    Trainer.training_step = counted
    try:
        yield found
    finally:
        Trainer.training_step = original


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Ctrl-C after so many seconds of the clock."""

    def stop(number: int, frame: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
