"""Whether the files of a run hold what a command goes on from."""

from collections.abc import Callable, Sequence
from typing import Any

from heldout.core.errors import UserError
from heldout.core.run import Run

_Kind = type[dict[str, Any]] | type[list[Any]]

# Of each file that is there: an object with these keys, or a list.
_HOLDS: dict[str, tuple[_Kind, tuple[str, ...]]] = {
    "environment.json": (dict, ("model",)),
    "data.json": (dict, ("mode", "rows")),
    "search.json": (dict, ("trials",)),
    "tuning.json": (dict, ()),
    "ablation.json": (dict, ()),
    "result.json": (dict, ("best_step", "best_epoch", "learning_rate")),
    "recitals.json": (dict, ()),
    "measurements.json": (dict, ("measurements",)),
    "verdict.json": (dict, ()),
    "kept.json": (dict, ()),
    "contexts.json": (dict, ()),
    "checks.json": (list, ()),
    "samples.json": (list, ()),
    "remedies.json": (list, ()),
}


def refuse_damaged(run: Run) -> None:
    """UserError for a file that was cut, or holds something else than the run wrote there."""
    for name, (kind, keys) in _HOLDS.items():
        if run.path(name).exists():
            _refuse_unless(run, name, kind, keys, lambda of: [run.read_json(of)])
    for path in sorted(run.folder.glob("*history.jsonl")):
        _refuse_unless(run, path.name, dict, ("step",), run.history)
    openings = "data/test_openings.jsonl"
    _refuse_unless(run, openings, dict, ("purpose",), lambda _: run.test_openings)


def _refuse_unless(
    run: Run, name: str, kind: _Kind, keys: Sequence[str], read: Callable[[str], list[Any]]
) -> None:
    """Unless each entry of the file is of that kind, with those keys."""

    def holds(entry: Any) -> bool:
        return isinstance(entry, kind) and all(key in entry for key in keys)

    try:
        is_sound = all(map(holds, read(name)))
    except (ValueError, RecursionError):
        is_sound = False
    if not is_sound:
        raise UserError(f"{run.path(name)} is damaged: put it back as it was, or start a new run.")
