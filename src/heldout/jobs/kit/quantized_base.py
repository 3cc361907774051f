"""What quantizing the frozen weights of a base costs: its own loss with and without that."""

from collections.abc import Sequence

from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.run_files import PreflightCheck
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.target import Target
from heldout.lm.accelerator import empty_cache, free_bytes, training_device
from heldout.lm.load import LoadedModel, count_parameters

_BYTES = 4  # of a number in float32
_ROOM = 0.5  # of the free memory: what else the machine does, and the pass itself, have the rest


def whole_base_nats(target: Target, recipe: Recipe, rows: Sequence[Row]) -> float | None:
    """Nats per token of the base in float32; None where nothing is quantized, or it does not fit.

    Loads the model, and drops it again. ``rows`` are to be few.
    """
    if not recipe.model.load_in or not _fits(target, recipe):
        return None
    loaded = target.load(recipe.replace(model={"load_in": ""}))
    nats = losses_of(loaded.model, loaded.tokenizer, rows, recipe).nats_per_token
    del loaded
    empty_cache()
    return nats


def check_quantized_base(
    loaded: LoadedModel, recipe: Recipe, rows: Sequence[Row], whole_nats: float | None
) -> list[PreflightCheck]:
    """The loss of the quantized base, from which everything is compared, beside ``whole_nats``."""
    if not recipe.model.load_in:
        return []
    found = losses_of(loaded.model, loaded.tokenizer, rows, recipe)
    held = f"{found.nats_per_token:.3f} nats/token on {len(rows)} rows, in {recipe.model.load_in}"
    if whole_nats is None:
        words = f"{held}; in float32 it does not fit here"
    else:
        words = f"{held}; {whole_nats:.3f} in float32"
    return [PreflightCheck("quantized base", "ok", words)]


def _fits(target: Target, recipe: Recipe) -> bool:
    num = count_parameters(target.model, trust_remote_code=recipe.model.trust_remote_code)
    free = [free_bytes("cpu"), free_bytes(training_device())]
    known = [each for each in free if each is not None]
    return num is not None and num * _BYTES < _ROOM * min(known)
