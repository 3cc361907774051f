"""How many bits a model can hold: trained from scratch on more and more text that has no pattern.

Of uniform random tokens nothing can be understood, so every bit by which a model shortens them is
a bit it has memorized. Bits memorized rise with the text until the model is full: the plateau over
its parameters is its capacity (Morris et al. 2025, arXiv 2505.24832). Training is finite, so what
is found is a lower bound. On real text, what a reference model predicts too is not memorized.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.interrupt import StopRequest, stop_on_interrupt
from heldout.core.lock import alone_in
from heldout.core.progress import Progress
from heldout.core.results.capacity import CapacityResult, Filled, plateaus
from heldout.jobs.kit.page_folder import write_page_folder
from heldout.jobs.planning.capacity_texts import (
    BATCH,
    FillText,
    random_text,
    read_config,
    real_text,
)
from heldout.jobs.planning.fill import FilledModels, Filling, FillTraining, fill
from heldout.lm.quiet import quiet_libraries
from heldout.report import capacity as page

LOADS = (0.5, 1.0, 2.0, 3.0, 4.5, 6.0)  # bits of text per parameter


def capacity(
    configs: Sequence[str | Path],
    *,
    loads: Sequence[float] = LOADS,
    steps: int = 2000,
    length: int = 32,
    learning_rate: float = 1e-2,
    seed: int = 0,
    data: str = "",
    reference: str = "",
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> CapacityResult:
    """Train each configuration on ``loads`` bits of text per parameter and measure what it holds.

    The text is sequences of ``length`` uniform random tokens, and with ``data`` and ``reference``
    (a model) real text too, whose bits are those under the reference. Each model trains for
    ``steps`` steps of 64 sequences, whatever the amount. With ``out``, finished models are kept
    there and not trained again, and ``capacity.json`` and ``report.html`` are written.

    Raises UserError for a configuration without ``vocab_size``, for ``data`` without
    ``reference``, and for values out of range; Interrupted on Ctrl-C.
    """
    progress = progress or Progress()
    _check(loads, steps, length, learning_rate, bool(data), bool(reference))
    paths = _named_paths(configs)
    settings = {
        "configs": {name: read_config(path) for name, path in paths.items()},
        "loads": sorted(loads),
        "steps": steps,
        "length": length,
        "learning_rate": learning_rate,
        "batch_size": BATCH,
        "seed": seed,
        "data": data,
        "reference": reference,
    }
    folder = None if out is None else Path(out)
    how = FillTraining(steps, learning_rate, seed)
    filled: list[Filled] = []
    notes: list[str] = []
    alone = nullcontext() if folder is None else alone_in(folder)
    with quiet_libraries(), stop_on_interrupt() as asked, alone:
        models = FilledModels(folder)
        real = real_text(data, reference, seed, progress) if data else None
        total = steps * len(loads) * len(paths) * (2 if real else 1)
        with progress.stage("filling models", total):
            for name, path in paths.items():
                for text in _texts(path, max(loads), length, seed, real):
                    for load in sorted(loads):
                        filling = Filling(name, path, text, load, how)
                        found = _filled(filling, models, progress, asked)
                        if found is not None:
                            filled.append(found)
                        else:
                            notes.append(
                                f"{text.name} has too few rows for {load:g} bits per parameter of "
                                f"{name}: that amount was left out."
                            )
    if not filled:
        raise UserError(
            f"{data} is too short: give a smaller configuration or a lower --load. "
            "Nothing was measured."
        )
    result = CapacityResult(filled, plateaus(filled), settings, notes)
    if folder is None:
        return result
    result = replace(result, report=str(folder / "report.html"))
    write_page_folder(
        folder,
        "capacity.json",
        result.to_json(),
        lambda path: page.write_capacity(result, path),
    )
    return result


def _texts(
    config: Path, most: float, length: int, seed: int, real: FillText | None
) -> list[FillText]:
    """Random tokens for this configuration, then the real text where there is one."""
    texts = [random_text(config, most, length, seed)]
    return [*texts, real] if real else texts


def _filled(
    filling: Filling, models: FilledModels, progress: Progress, asked: StopRequest
) -> Filled | None:
    """The filled model, trained now unless it was before; None where the text is too short."""
    key = filling.key()
    found = models.get(key)
    if found is not None:
        progress.advance(filling.training.steps)
    else:
        found = fill(filling, progress, lambda: bool(asked))
        if found is None:
            progress.advance(filling.training.steps)
            return None
        models.add(key, found)
    progress.advance(
        0,
        f"{filling.name}: {found.memorized.value:.2f} of {found.load:.2f} bits per parameter",
    )
    return replace(found, config=filling.name)


def _check(
    loads: Sequence[float],
    steps: int,
    length: int,
    learning_rate: float,
    has_data: bool,
    has_reference: bool,
) -> None:
    if not loads or not all(0 < load <= 1000 for load in loads):
        raise UserError(
            f"--load must be above 0 and at most 1000 bits per parameter, got {list(loads)}."
        )
    for name, value, least in (("--steps", steps, 10), ("--length", length, 2)):
        if value < least:
            raise UserError(f"{name} must be {least} or more, got {value}.")
    if not 0 < learning_rate < 1:
        raise UserError(f"--learning-rate must be above 0 and under 1, got {learning_rate}.")
    if has_data != has_reference:
        raise UserError(
            "--data and --reference go together: what the reference predicts is not memorized."
        )


def _named_paths(configs: Sequence[str | Path]) -> dict[str, Path]:
    """Short names of the configurations, the paths where two would be the same."""
    if not configs:
        raise UserError("capacity needs --config config.json: the model whose capacity is asked.")
    paths = [Path(config).expanduser() for config in configs]
    paths = [path / "config.json" if path.is_dir() else path for path in paths]
    short = [path.parent.resolve().name if path.stem == "config" else path.stem for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    return dict(zip(names, paths, strict=True))
