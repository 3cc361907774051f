"""A model given as an object: saved to a scratch folder, from which fresh copies are loaded.

A job loads its base several times and in several processes, and must not change what it was given.
The folder goes when the job ends, so that a run which goes on needs the model again; its hash
says whether it is the same.
"""

import copy
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Union

from filelock import FileLock, Timeout

from heldout.core.damage import refuse_damaged
from heldout.core.errors import UserError
from heldout.core.files import LOCK
from heldout.core.lock import scratch_folder
from heldout.core.run import Run
from heldout.jobs.kit.given_data import renamed
from heldout.jobs.kit.hashes import file_sha256
from heldout.lm.fingerprint import fingerprint
from heldout.lm.source import GIVEN, read_json

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

# A name as on the command line, or what ``from_pretrained`` or ``get_peft_model`` gave.
ModelSource: TypeAlias = Union[str, Path, "PreTrainedModel", "PeftModel"]

T = TypeVar("T")
_BASE = "base"
_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class GivenModel:
    """Where a model lies while a job works; ``object`` is what to write of one given as object."""

    name: str
    object: dict[str, str] | None = None

    @property
    def shown(self) -> str:
        """For the name of a run folder."""
        return self.name if self.object is None else self.object["class"]

    def renamed(self, value: T) -> T:
        """``value``, or whatever holds texts, with the class in place of the scratch folder."""
        if self.object is None:
            return value
        return renamed(value, lambda text: text.replace(self.name, self.shown))

    @property
    def about(self) -> dict[str, Any]:
        """For a run's environment.json."""
        return {} if self.object is None else {"object": self.object}

    @property
    def digest(self) -> str:
        """Of an object what tells it from others, wherever its scratch lies; "" of a name."""
        if self.object is None:
            return ""
        config = Path(self.name) / _ADAPTER
        if not config.is_file():
            return fingerprint(self.name)
        about = read_json(config) | {"base_model_name_or_path": fingerprint(f"{self.name}/{_BASE}")}
        # What peft keeps as sets has no order.
        told = {key: sorted(v, key=str) if isinstance(v, list) else v for key, v in about.items()}
        found = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        for file in sorted(Path(self.name).glob("adapter_model.*")):
            found.update(file_sha256(file).encode())
        return found.hexdigest()

    def kept_in(self, folder: Path) -> str:
        """A name that stays when the job ends: an object is copied to ``folder``."""
        if self.object is None:
            return self.name
        kept = folder.resolve()
        shutil.copytree(self.name, kept, ignore=shutil.ignore_patterns(LOCK))
        if (kept / _ADAPTER).is_file():
            config = read_json(kept / _ADAPTER)
            config["base_model_name_or_path"] = str(kept / _BASE)
            (kept / _ADAPTER).write_text(json.dumps(config, indent=2), encoding="utf-8")
        return str(kept)

    def finish(self, run: Run) -> None:
        """Adapters of a complete run name the base by where it came from, not by the scratch."""
        if self.object is None:
            return
        for file in run.folder.glob(f"*/{_ADAPTER}"):
            config = json.loads(file.read_text(encoding="utf-8"))
            if str(config.get("base_model_name_or_path", "")).startswith(self.name):
                config["base_model_name_or_path"] = self.object["name_or_path"]
                run.write_text(
                    str(file.relative_to(run.folder)), json.dumps(config, indent=2) + "\n"
                )


@contextmanager
def given_model(model: Any, tokenizer: Any = None, *, at: str = "") -> Iterator[GivenModel]:
    """A name as it is; an object as a folder that is there while the block runs.

    ``at``: where the run that goes on had it. Raises UserError for what is no model.
    """
    if isinstance(model, str | Path):
        if tokenizer is not None:
            raise UserError("tokenizer goes with a model given as an object; a folder has its own.")
        yield GivenModel(str(model))
        return
    if not (hasattr(model, "save_pretrained") and hasattr(model, "forward")):
        raise UserError(
            "model must be a folder, a Hub id, or a model of transformers or peft, got "
            f"{type(model).__name__}."
        )
    if not hasattr(tokenizer, "save_pretrained"):
        raise UserError(
            "tokenizer must be the tokenizer of the model that is given as an object, got "
            f"{type(tokenizer).__name__}."
        )
    from heldout.lm.quiet import quiet_libraries  # needs torch, which a name does not

    with _folder(at) as folder:
        with quiet_libraries():
            came_from = _save(model, tokenizer, folder)
        kind = type(model).__name__
        given = GivenModel(str(folder), {"class": kind, "name_or_path": came_from})
        try:
            yield given
        except UserError as error:
            raise type(error)(given.renamed(str(error))) from None


@contextmanager
def given_again(run: Run, model: Any, tokenizer: Any) -> Iterator[GivenModel]:
    """The model of a run that goes on; UserError where it was an object and is not given now."""
    refuse_damaged(run)
    known = run.read_json("environment.json") if run.path("environment.json").exists() else {}
    was = known.get("object")
    if was is None or run.status.get("state") == "complete":
        if model is not None or tokenizer is not None:
            raise UserError(
                f"model: {run.folder} goes on with the model that it names; leave model and "
                "tokenizer out."
            )
        yield GivenModel(str(known.get("model", "")))
        return
    if model is None or isinstance(model, str | Path):
        raise UserError(
            f"{run.folder} trains a model that was given as an object ({was['class']}): give it "
            "again, heldout.resume(RUN, model=model, tokenizer=tokenizer)."
        )
    with given_model(model, tokenizer, at=known["model"]) as given:
        yield given


@contextmanager
def given_base(run: Run, model: Any, tokenizer: Any) -> Iterator[str]:
    """The base of a complete run, to train from again; an object must be given again.

    Raises UserError where it is missing, is another one, or is given where the run names its model.
    """
    known = run.read_json("environment.json")
    was = known.get("object")
    if was is None:
        if model is not None or tokenizer is not None:
            raise UserError(
                f"model: {run.folder} names the model that it was trained from; leave model and "
                "tokenizer out."
            )
        yield str(known["model"])
        return
    if model is None or isinstance(model, str | Path):
        raise UserError(
            f"{run.folder} was trained from a model that was given as an object ({was['class']}): "
            "give it again, heldout.counterfactual(RUN, model=model, tokenizer=tokenizer)."
        )
    with given_model(model, tokenizer, at=known["model"]) as given:
        begun = (known.get("sha256") or {}).get("model")
        if begun and begun != fingerprint(given.name):
            raise UserError(
                f"The model that was given is not the one that {run.folder} was trained from: "
                "give that one."
            )
        yield given.name


@contextmanager
def _folder(at: str) -> Iterator[Path]:
    if not at:
        with scratch_folder(GIVEN) as folder:
            yield folder
        return
    folder = Path(at)
    # What a run names as its scratch was made here; anything else was written into it.
    if folder.parent != Path(tempfile.gettempdir()) or not folder.name.startswith(GIVEN):
        raise UserError(f"environment.json names {at} as scratch folder: start the run anew.")
    if folder.exists():  # a kill left it, or another process works there
        with suppress(Timeout), FileLock(folder / LOCK, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise UserError(f"{at} is in use by another process: wait for it.") from None
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _save(model: Any, tokenizer: Any, folder: Path) -> str:
    """Write model and tokenizer; of an adapter its base too. Returns where the base came from."""
    if getattr(model, "is_quantized", False):
        raise UserError(
            "model is quantized already: name the folder or Hub id that it was loaded from, with "
            "model.load_in=4bit or 8bit."
        )
    tokenizer.save_pretrained(folder)
    if not hasattr(model, "peft_config"):
        model.save_pretrained(folder)
        return str(getattr(model.config, "_name_or_path", ""))
    base = copy.deepcopy(model).unload()
    base.save_pretrained(folder / _BASE)
    tokenizer.save_pretrained(folder / _BASE)
    model.save_pretrained(folder)
    config = read_json(folder / _ADAPTER)
    came_from = str(config.get("base_model_name_or_path") or "")
    config["base_model_name_or_path"] = str(folder / _BASE)
    (folder / _ADAPTER).write_text(json.dumps(config, indent=2), encoding="utf-8")
    return came_from
