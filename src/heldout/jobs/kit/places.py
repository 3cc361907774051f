"""How many trainings of a job go on at once, and with how many threads each.

Figures depend on the number of threads in their last bits. So both are decided once, when a job is
planned, from the recipe, the work and the machine, and are kept with the run: whether trainings
then really go side by side, or one after the other, changes no figure.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from heldout.core.files import write_text
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.lm.accelerator import free_bytes, training_device
from heldout.lm.quantized import num_parameters
from heldout.training.preflight import memory_needed
from heldout.training.windows import WindowDataset

# A process of its own takes about five seconds to import torch and transformers.
WORTH_SECONDS = 15.0
_STEP_SECONDS = 0.02  # of a step of the Trainer, whatever the model
_FLOPS = 6e10  # a second, of one thread
PROCESS_BYTES = 0.8e9  # of Python, torch and transformers, before any weights
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Needs:
    """What one of the trainings takes."""

    bytes: float  # on the device that trains, with the weights
    seconds: float  # on one thread, very roughly

    @classmethod
    def of(
        cls,
        model: Any,
        windows: WindowDataset,
        recipe: Recipe,
        regularizers: Sequence[Regularizer],
        num_steps: float,
    ) -> "Needs":
        """Counted from the model to train and its windows; nothing is run."""
        vocabulary = model.get_input_embeddings().weight.shape[0]
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        tokens = recipe.train.batch_size * len(windows.ids) / max(1, len(windows))
        flops = 6 * num_parameters(model) * tokens
        needed = memory_needed(model, windows, recipe, regularizers, vocabulary)
        return cls(PROCESS_BYTES + weights + needed, num_steps * (_STEP_SECONDS + flops / _FLOPS))


NOTHING = Needs(0.0, 0.0)


@dataclass(frozen=True)
class Machine:
    """What there is to train on."""

    device: str
    cores: int
    free_bytes: float
    gpus: tuple[str, ...] = ()  # CUDA devices, as CUDA_VISIBLE_DEVICES names them

    @classmethod
    def here(cls) -> "Machine":
        device = training_device()
        free = free_bytes(device)
        return cls(device, usable_cores(), math.inf if free is None else free, visible_gpus())


@dataclass(frozen=True)
class Places:
    """Trainings at once, this process's own among them, and threads of each."""

    most: int
    threads: int

    @classmethod
    def plan(
        cls, recipe: Recipe, num_tasks: int, needs: Needs, machine: Machine | None = None
    ) -> "Places":
        """As many as there are tasks, cores or GPUs, and free memory for.

        Few seconds of work are not worth another process, unless ``train.side_by_side`` says how
        many. Of GPUs each has one training; other accelerators have one place.
        """
        machine = machine or Machine.here()
        asked, threads = recipe.train.side_by_side, recipe.train.threads
        most = min(asked or num_tasks, num_tasks)
        if machine.device == "cpu":
            if asked == 0:
                most = min(most, machine.cores // max(1, threads))
                if needs.seconds < WORTH_SECONDS:
                    most = 1
            if needs.bytes * num_tasks > machine.free_bytes:
                most = min(most, int(machine.free_bytes / needs.bytes))
        else:
            most = min(most, len(machine.gpus))
        most = max(1, most)
        chosen = threads or min(torch.get_num_threads(), machine.cores // most)
        return cls(most, max(1, chosen))

    @classmethod
    def plan_with_search(
        cls,
        recipe: Recipe,
        num_tasks: int,
        needs: Needs,
        trial: Needs,
        machine: Machine | None = None,
    ) -> "Places":
        """``plan``; where that gives one place, two for the trials of a learning rate.

        Only where these are worth a process and no training gets fewer threads by that, or where
        the recipe asks for it.
        """
        machine = machine or Machine.here()
        places = cls.plan(recipe, num_tasks, needs, machine)
        if places.most > 1:
            return places
        both = cls.plan(recipe, 2, trial, machine)
        return both if recipe.train.side_by_side or both.threads == places.threads else places

    @classmethod
    def of_environment(cls, known: dict[str, Any]) -> "Places":
        """As a run's ``environment.json`` has kept them; no more threads than cores."""
        threads = known.get("threads") or torch.get_num_threads()
        return cls(known.get("side_by_side", 1), max(1, min(threads, usable_cores())))

    @property
    def kept(self) -> dict[str, int]:
        """For ``environment.json``."""
        return {"threads": self.threads, "side_by_side": self.most}

    @classmethod
    def kept_in(cls, folder: Path, plan: Callable[[], "Places"]) -> "Places":
        """Those in ``places.json`` of a folder that goes on, else planned now and kept there."""
        path = folder / "places.json"
        if not path.exists():
            write_text(path, json.dumps(plan().kept) + "\n")
        return cls.of_environment(json.loads(path.read_text(encoding="utf-8")))

    @property
    def words(self) -> str:
        """For people, before a run."""
        if self.most == 1:
            return f"one training at a time; threads: {self.threads}"
        return (
            f"up to {self.most} trainings at once; threads of each: {self.threads}; one after the "
            "other with --set train.side_by_side=1"
        )

    def environment(self, number: int) -> dict[str, str]:
        """Variables of another process: a GPU of its own, where there are several."""
        gpus = visible_gpus()
        own = {_VISIBLE: gpus[number % len(gpus)]} if gpus else {}
        return {"OMP_NUM_THREADS": str(self.threads), **own}


ALONE = Places(1, 1)


_shared_out: ContextVar[int | None] = ContextVar("cores", default=None)


@contextmanager
def threads_of(places: Places) -> Iterator[None]:
    """Torch computes with the threads of one training in the block, and what is planned in it
    has as many cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(places.threads)
    token = _shared_out.set(places.threads if places.most > 1 else _shared_out.get())
    try:
        yield
    finally:
        _shared_out.reset(token)
        torch.set_num_threads(before)


def usable_cores() -> int:
    """Cores that this process may use: of its affinity, of its container, and its share."""
    if (share := _shared_out.get()) is not None:
        return share
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        granted, _, period = quota.read_text(encoding="ascii").partition(" ")
        if granted.isdigit():
            cores = min(cores, max(1, math.ceil(int(granted) / int(period))))
    return cores


def visible_gpus() -> tuple[str, ...]:
    """CUDA devices as the variable of a process names them; empty without any."""
    if training_device() != "cuda":
        return ()
    num = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",") if name.strip()]
    return tuple(named[:num]) or tuple(str(number) for number in range(num))
