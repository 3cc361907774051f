"""Where a model lies: folder, checkpoint in a folder, installed package, GGUF file or the Hub."""

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from heldout.core.errors import UserError
from heldout.lm.foreign_folders import MLX_ADAPTER, refuse_foreign

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "spiece.model",
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
GIVEN = "heldout-model-"  # what scratch folders of models given as objects begin with
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """A model's place: ``path`` is a folder or a GGUF file, or None for the Hub id ``name``."""

    name: str
    path: Path | None
    is_adapter: bool = False

    @property
    def is_gguf(self) -> bool:
        return self.path is not None and self.path.suffix == ".gguf"


def find_source(target: str) -> Source:
    """Find what ``target`` names; raises UserError with one line for all that cannot be loaded.

    A folder may be a model, an adapter, a ``checkpoint-N``, or hold nothing but such checkpoints:
    then the highest is taken, and ``name`` says which. ``package:NAME`` looks inside an installed
    Python package, which is not imported. What is neither a path nor there is taken for a Hub id.
    """
    if target.startswith("package:"):
        return _in_package(target)
    path = Path(target).expanduser()
    if path.is_dir():
        return _in_folder(path, target)
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(
                f"Model {target} is a file: give the folder that holds the model, or a .gguf file."
            )
        return Source(target, path)
    if GIVEN in target:
        raise UserError(
            "The model was given as an object, which is gone: save it with save_pretrained, and "
            "name its folder."
        )
    looks_local = target.startswith((".", "/", "~")) or target.endswith((".gguf", ".safetensors"))
    if looks_local or not _HUB_ID.fullmatch(target):
        raise UserError(f"Model {target}: no such folder or file.")
    return Source(target, None)


def adapter_base(source: Source) -> str:
    """What an adapter folder says that it was trained on.

    A relative path is looked for from the adapter's own folder first, so that the two can be moved
    together and mean the same wherever the command is run; else it stands as it is, for the
    current folder or the Hub.
    """
    assert source.path is not None
    base, seen, folder = "", [source.path.resolve()], source.path
    while (folder / "adapter_config.json").is_file():
        named = _named_base(folder, source.name)
        base = base or named  # of the first; the others are followed to see that they end
        folder = Path(named)
        if folder.resolve() in seen:
            raise UserError(
                f"Adapter {source.name} is its own base by base_model_name_or_path in its "
                "adapter_config.json: write the model there that it was trained on."
            )
        seen.append(folder.resolve())
    return base


def _named_base(folder: Path, name: str) -> str:
    base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if base is not None and not isinstance(base, str):
        raise UserError(
            f"Adapter {name}: base_model_name_or_path in adapter_config.json must be the path or "
            f"Hub id of a model, in quotes, got {json.dumps(base)}."
        )
    if not base:
        raise UserError(
            f"Adapter {name}: adapter_config.json does not name its base model "
            "(base_model_name_or_path): write it there."
        )
    beside = folder / base
    return str(beside) if beside.exists() else base


def tokenizer_folder(source: Source) -> Path | None:
    """The folder with the tokenizer: the model's own, or the one around a checkpoint."""
    assert source.path is not None
    for folder in (source.path, source.path.absolute().parent):
        if any((folder / name).is_file() for name in TOKENIZER_FILES):
            return folder
        if not re.fullmatch(r"checkpoint-\d+", source.path.absolute().name):
            break
    return None


def check_safetensors(folder: Path) -> None:
    """Read the headers of all weights; raises UserError for a damaged or unfinished file."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"Weights {file} are damaged or cut short ({error}): copy or download them again."
            ) from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the model; raises UserError where it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object.")
    return value


def _in_package(target: str) -> Source:
    name, _, inside = target.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(name) if re.fullmatch(r"\w+", name) else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"Model {target}: no Python package {name!r} is installed.")
    folder = Path(spec.submodule_search_locations[0]) / inside
    if not folder.is_dir():
        raise UserError(f"Model {target}: {folder} is not a folder.")
    found = set(folder.rglob("*.gguf"))
    found |= {
        file.parent
        for kind in ("config.json", "adapter_config.json")
        for file in folder.rglob(kind)
        if any(file.parent.glob("*.safetensors"))
    }
    if len(found) != 1:
        names = ", ".join(sorted(str(path.relative_to(folder)) for path in found)) or "none"
        raise UserError(
            f"Model {target} must hold one model, found {names}: name one as package:NAME/FOLDER."
        )
    (path,) = found
    return Source(target, path) if path.is_file() else _in_folder(path, target)


def _in_folder(folder: Path, name: str) -> Source:
    is_adapter = (folder / "adapter_config.json").is_file()
    has_adapter = any(folder.glob("adapter_model*.safetensors"))
    has_model = any(file for file in folder.glob("*.safetensors") if file.name != MLX_ADAPTER)
    if has_adapter if is_adapter else has_model:
        if not is_adapter and not (folder / "config.json").is_file():
            raise UserError(f"Model {name} has weights but no config.json: copy it there.")
        return Source(name, folder, is_adapter)
    ggufs = sorted(folder.glob("*.gguf"))
    if len(ggufs) == 1:
        return Source(f"{name}/{ggufs[0].name}", ggufs[0])
    if ggufs:
        names = ", ".join(file.name for file in ggufs)
        raise UserError(f"Model {name} holds several GGUF files ({names}): name one of them.")
    pickles = [file.name for pattern in _PICKLES for file in sorted(folder.glob(pattern))]
    weights = [file for file in pickles if "model" in file or "weights" in file]
    if weights:
        raise UserError(
            f"Model {name} has its weights in {weights[0]}, a pickle, which can run any code when "
            "it is opened: convert it to safetensors."
        )
    checkpoints = sorted(
        (int(match[1]), child)
        for child in folder.iterdir()
        if child.is_dir() and (match := re.fullmatch(r"checkpoint-(\d+)", child.name))
    )
    if checkpoints:
        latest = checkpoints[-1][1]
        return _in_folder(latest, f"{name.rstrip('/')}/{latest.name}")
    if (folder / "best").is_dir():
        raise UserError(f"Model {name} is a run: its models are {name}/best and {name}/last.")
    refuse_foreign(folder, name)
    raise UserError(f"Model {name} has no weights: no .safetensors or .gguf file in it.")
