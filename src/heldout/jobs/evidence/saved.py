"""Statistics of passes and generations in a run folder, so that no model is needed to judge it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.files import write_text, written_whole
from heldout.core.losses import DocumentLosses
from heldout.core.pass_statistics import Generations, PassStatistics, Suffixes

_ARRAYS = (
    "row_index_D",
    "zlib_bytes_D",
    "min_k_D",
    "min_k_plus_D",
    "entropy_nats_D",
    "brier_D",
    "bin_tokens_DC",
    "bin_confidence_DC",
    "bin_correct_DC",
    "position_nats_DP",
    "position_tokens_DP",
)
_LOSSES = ("nll_nats_D", "num_tokens_D", "num_bytes_D", "groups_D")


def save_statistics(found: PassStatistics, path: Path, key: str = "") -> None:
    """Write as .npz, compressed, whole or not at all; ``key`` tells what was read with what."""
    arrays = {name: getattr(found, name) for name in _ARRAYS}
    arrays |= {f"losses.{name}": getattr(found.losses, name) for name in _LOSSES}
    for name, each in found.suffixes.items():
        arrays[f"suffix.{name}.tokens"] = np.array([each.prefix_tokens, each.suffix_tokens])
        arrays[f"suffix.{name}.nats_D"] = each.nats_D
        arrays[f"suffix.{name}.greedy_D"] = each.greedy_D
    arrays["key"] = np.array(key)
    with written_whole(path) as partial:
        np.savez_compressed(partial, **arrays)


def key_of_statistics(path: Path) -> str:
    """Which key they were saved with; "" in runs of older versions."""
    with np.load(path, allow_pickle=False) as arrays:
        return str(arrays["key"]) if "key" in arrays.files else ""


def load_statistics(path: Path) -> PassStatistics:
    """What ``save_statistics`` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        names = {key.split(".")[1] for key in arrays.files if key.startswith("suffix.")}
        suffixes = {}
        for name in sorted(names):
            prefix_tokens, suffix_tokens = arrays[f"suffix.{name}.tokens"].tolist()
            nats_D, greedy_D = (arrays[f"suffix.{name}.{what}_D"] for what in ("nats", "greedy"))
            suffixes[name] = Suffixes(prefix_tokens, suffix_tokens, nats_D, greedy_D)
        losses = DocumentLosses(*(arrays[f"losses.{name}"] for name in _LOSSES))
        return PassStatistics(losses, suffixes=suffixes, **{name: arrays[name] for name in _ARRAYS})


def save_generations(found: Generations, path: Path, key: str = "") -> None:
    """Write as JSON, whole or not at all."""
    write_text(path, json.dumps({**asdict(found), "key": key}, default=np.ndarray.tolist))


def key_of_generations(path: Path) -> str:
    """Which key they were saved with; "" in runs of older versions."""
    return json.loads(path.read_text(encoding="utf-8")).get("key", "")


def load_generations(path: Path) -> Generations:
    """What ``save_generations`` wrote."""
    entry: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    entry.pop("key", None)
    for name in ("token_ids", "reference_ids", "prompt_ids"):
        entry[name] = [np.array(ids, dtype=np.int32) for ids in entry[name]]
    for name in ("own_nats", "reference_nats"):
        if entry[name] is not None:
            entry[name] = [np.array(nats, dtype=np.float64) for nats in entry[name]]
    entry["ended"] = np.array(entry["ended"], dtype=bool)
    entry["groups"] = np.array(entry["groups"], dtype=str)
    entry["row_index"] = np.array(entry["row_index"], dtype=np.int64)
    return Generations(**entry)
