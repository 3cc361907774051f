"""What ``advise`` is asked: a model, data, a budget of compute and own runs, if there are any."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.jobs.planning.fitted_law import OwnRuns
from heldout.jobs.planning.recipe_rules import check_goal


@dataclass(frozen=True)
class AskedModel:
    """A model to fine-tune, a configuration to train from scratch, a size, or none: any size.

    With ``from_scratch``, a config.json, ``name`` is the model whose tokenizer is used.
    """

    name: str = ""
    from_scratch: str = ""
    parameters: float | None = None

    @property
    def is_pretrained(self) -> bool:
        return bool(self.name) and not self.from_scratch


@dataclass(frozen=True)
class AskedData:
    """A number of ``unique_tokens``, or data of whose training part they are counted.

    ``measure`` trains on parts of the data to say whether more of it is worth it.
    """

    path: str = ""
    unique_tokens: float | None = None
    measure: bool = False


@dataclass(frozen=True)
class Budget:
    """Training compute: FLOPs, or hours or minutes at a sustained rate; nothing for no limit."""

    flops: float | None = None
    hours: float | None = None
    flops_per_second: float | None = None
    minutes: float | None = None

    @property
    def time_in_minutes(self) -> float | None:
        """UserError for what is no time."""
        if self.hours is not None and self.minutes is not None:
            raise UserError("Give --hours or --minutes, not both.")
        found = self.minutes if self.hours is None else 60 * self.hours
        if found is not None and not (0 < found < math.inf):
            raise UserError(f"--hours and --minutes must be a positive number, got {found:g}.")
        return found

    def total_flops(self, *, time_alone: bool = False) -> float | None:
        """None without a limit; UserError for what is no budget.

        ``time_alone``: time may be given without the rate of the hardware, which then is no limit.
        """
        minutes, total = self.time_in_minutes, self.flops
        if minutes is not None and total is not None:
            raise UserError("Give --flops, or a time with --hours or --minutes, not both.")
        if minutes is None and self.flops_per_second is not None:
            raise UserError("--flops-per-second makes a budget of --hours or --minutes: give one.")
        if minutes is not None and self.flops_per_second is not None:
            total = minutes * 60 * self.flops_per_second
        elif minutes is not None and not time_alone:
            raise UserError(
                "--hours and --minutes need --flops-per-second: the sustained rate of your "
                "hardware makes a budget of the time. To fine-tune, give --model and --data."
            )
        if total is not None and not (0 < total < math.inf):
            raise UserError(f"The compute must be a positive number of FLOPs, got {total:g}.")
        return total


@dataclass(frozen=True)
class Question:
    """What is given. ``epochs`` asks about that many; by default the best number is looked for.

    ``runs`` are own runs, which ``law`` or the best forecaster is fitted to; without them ``law``
    names published constants. ``recipe`` and ``settings`` say how the data is split and, to
    measure, trained on. ``goal`` is what a fine-tuning is for beside a low loss; see
    recipe_advice.toml.
    """

    model: AskedModel = AskedModel()
    data: AskedData = AskedData()
    budget: Budget = Budget()
    epochs: float | None = None
    serve_tokens: float | None = None
    runs: OwnRuns | None = None
    law: str = ""
    recipe: str | Path | Recipe = "default"
    settings: Sequence[str] = ()
    goal: str = ""

    @property
    def is_fine_tuning(self) -> bool:
        """Whether a recipe is asked for, whose command takes minutes."""
        return self.model.is_pretrained and bool(self.data.path)

    def total_flops(self) -> float | None:
        """Of the budget; None without a limit."""
        return self.budget.total_flops(time_alone=self.is_fine_tuning)

    def check(self) -> None:
        """UserError for what cannot be answered."""
        flops = self.total_flops()
        self._check_numbers()
        self._check_sources()
        if self.goal:
            check_goal(self.goal)
            if not self.is_fine_tuning:
                raise UserError(
                    f"--goal {self.goal} asks for a recipe to fine-tune a pretrained model: give "
                    "--model and --data, or leave it out."
                )
        if flops is None and self.model.parameters is None and not self.model.name:
            raise UserError(
                "Without a limit on compute no size is best: give --flops, or --hours with "
                "--flops-per-second, or --parameters."
            )

    def _check_numbers(self) -> None:
        for option, value in (
            ("--parameters", self.model.parameters),
            ("--unique-tokens", self.data.unique_tokens),
            ("--epochs", self.epochs),
            ("--serve-tokens", self.serve_tokens),
        ):
            if value is not None and not (0 < value < math.inf):
                raise UserError(f"{option} must be a positive number, got {value:g}.")
        if self.epochs is not None and self.epochs < 1:
            raise UserError(
                f"--epochs must be 1 or more, got {self.epochs:g}: less is a part of the data."
            )

    def _check_sources(self) -> None:
        model, data = self.model, self.data
        if model.parameters is not None and model.name:
            raise UserError("Give --parameters or --model, not both.")
        if data.path and not model.name:
            raise UserError(
                "--data is counted in tokens: name the tokenizer with --model, or give "
                "--unique-tokens."
            )
        if data.path and data.unique_tokens is not None:
            raise UserError("Give --data or --unique-tokens, not both.")
        if model.from_scratch and not model.name:
            raise UserError("--from-scratch needs --model for the tokenizer.")
        if data.measure and not data.path:
            raise UserError("--measure trains on parts of your data: give --model and --data.")
        if not data.path and data.unique_tokens is None:
            raise UserError("How much data is there? Give --unique-tokens, or --data with --model.")
