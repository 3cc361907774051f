"""What is trained, and how a fresh copy of it is loaded."""

from dataclasses import dataclass
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.lm.accelerator import trained_precision, training_device
from heldout.lm.chat_template import with_template_arguments
from heldout.lm.load import LoadedModel, from_scratch, load_model
from heldout.lm.quantized import Quantization


@dataclass(frozen=True)
class Target:
    """What is trained: a model to load, or a configuration to start from."""

    model: str
    from_scratch: str = ""  # path of a config.json; ``model`` then names the tokenizer

    @classmethod
    def of(cls, model: str, from_scratch: str) -> "Target":
        """Local paths become absolute, so that a run can be resumed from another folder."""

        def absolute(name: str) -> str:
            return str(Path(name).resolve()) if name and Path(name).exists() else name

        return cls(absolute(model), absolute(from_scratch))

    def load(self, recipe: Recipe) -> LoadedModel:
        """A fresh copy of the base, in float32 or quantized, on the device that trains."""
        loaded = self._load(recipe)
        with_template_arguments(loaded.tokenizer, recipe.data.template_arguments)
        return loaded

    def _load(self, recipe: Recipe) -> LoadedModel:
        device = training_device()
        if self.from_scratch:
            return from_scratch(
                self.from_scratch,
                self.model,
                seed=recipe.train.seed,
                device=device,
                norm=recipe.model.norm,
                norm_position=recipe.model.norm_position,
            )
        if recipe.model.norm or recipe.model.norm_position:
            raise UserError(
                "model.norm and model.norm_position choose the norms of a model from scratch: give "
                "--from-scratch config.json, or leave them out."
            )
        precision = trained_precision(recipe.train.precision)
        quantization = Quantization.of(recipe.model.load_in, precision)
        return load_model(
            self.model,
            device=device,
            trust_remote_code=recipe.model.trust_remote_code,
            merge_adapter=recipe.model.method == "full",  # LoRA goes on with the same adapter
            quantization=quantization,
        )
