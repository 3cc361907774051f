"""Embeddings of sentences by an encoder, for how alike two texts are."""

# D documents, T tokens, E width

from collections.abc import Sequence

import torch
from transformers import AutoModel, AutoTokenizer

from heldout.core.errors import UserError
from heldout.lm.source import find_source


@torch.no_grad()
def sentence_embeddings(name: str, texts: Sequence[str], batch_size: int = 32) -> torch.Tensor:
    """(D, E) means over tokens, of length 1, so that a product of two is their cosine.

    ``name`` is a folder, a Hub id or ``package:NAME``. Texts are cut where the model's end.
    """
    source = find_source(name)
    place = str(source.path or source.name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
        model = AutoModel.from_pretrained(place, use_safetensors=True, dtype=torch.float32).eval()
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"eval.embedding_model={name} cannot be loaded: {str(error).splitlines()[0]}"
        ) from None
    limit = getattr(model.config, "max_position_embeddings", 512)
    found = []
    for start in range(0, len(texts), batch_size):
        batch = tokenizer(
            list(texts[start : start + batch_size]),
            padding=True,
            truncation=True,
            max_length=limit,
            return_tensors="pt",
        )
        hidden_BTE = model(**batch).last_hidden_state
        mask_BT1 = batch["attention_mask"][:, :, None]
        mean_BE = (hidden_BTE * mask_BT1).sum(1) / mask_BT1.sum(1)
        found.append(torch.nn.functional.normalize(mean_BE, dim=1))
    return torch.cat(found)
