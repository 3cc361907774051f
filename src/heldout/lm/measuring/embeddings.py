"""Embeddings of sentences by an encoder, for how alike two texts are."""

# D documents, T tokens, E width

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from transformers import AutoModel, AutoTokenizer

from heldout.core.errors import UserError
from heldout.lm.source import find_source


@dataclass(frozen=True)
class Encoder:
    """A sentence encoder and its tokenizer."""

    tokenizer: Any
    model: torch.nn.Module

    @classmethod
    def load(cls, name: str, option: str = "eval.embedding_model=") -> Self:
        """``name`` is a folder, a Hub id or ``package:NAME``; ``option`` is what named it.

        UserError in one line where it cannot be loaded.
        """
        try:
            source = find_source(name)
            place = str(source.path or source.name)
            tokenizer = AutoTokenizer.from_pretrained(place)
            model = AutoModel.from_pretrained(place, use_safetensors=True, dtype=torch.float32)
        except UserError as error:
            raise UserError(f"{option}{name}: {error}") from None
        except (OSError, ValueError, ImportError) as error:
            raise UserError(
                f"{option}{name} cannot be loaded: {str(error).splitlines()[0]}"
            ) from None
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        return cls(tokenizer, model.eval())

    @torch.no_grad()
    def embed(self, texts: Sequence[str], batch_size: int = 32) -> torch.Tensor:
        """(D, E) means over tokens, of length 1, so that a product of two is their cosine.

        Texts are cut where the model's end; those of like length go together.
        """
        limit = getattr(self.model.config, "max_position_embeddings", 512)
        device = next(self.model.parameters()).device
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: list[torch.Tensor] = [torch.zeros(0)] * len(texts)
        for start in range(0, len(texts), batch_size):
            places = order[start : start + batch_size]
            batch = self.tokenizer(
                [texts[place] for place in places],
                padding=True,
                truncation=True,
                max_length=limit,
                return_tensors="pt",
            ).to(device)
            hidden_BTE = self.model(**batch).last_hidden_state
            mask_BT1 = batch["attention_mask"][:, :, None]
            mean_BE = (hidden_BTE * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1)
            unit_BE = torch.nn.functional.normalize(mean_BE, dim=1).cpu()
            for place, of_one in zip(places, unit_BE, strict=True):
                found[place] = of_one
        return torch.stack(found)


def sentence_embeddings(name: str, texts: Sequence[str], batch_size: int = 32) -> torch.Tensor:
    """``Encoder.embed`` by the encoder of that name."""
    return Encoder.load(name).embed(texts, batch_size)
