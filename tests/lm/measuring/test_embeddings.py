import pytest
import torch
from transformers import BertConfig, BertModel

from heldout.core.errors import UserError
from heldout.lm.measuring.embeddings import sentence_embeddings


def test_means_over_tokens_whatever_is_beside_them(tiny_tokenizer, tmp_path):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    texts = ["a module", "a much longer statement about names " * 9, "a module"]
    found = sentence_embeddings(str(tmp_path), texts, batch_size=2)
    assert found.norm(dim=1).tolist() == pytest.approx([1, 1, 1])
    assert torch.allclose(found[0], found[2], atol=1e-6), "padding does not count"
    ids = tiny_tokenizer(texts[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        mean = model(ids).last_hidden_state[0].mean(0)
    assert torch.allclose(found[0], mean / mean.norm(), atol=1e-6)
    with pytest.raises(UserError, match=r"eval.embedding_model=\./nothing|no such folder"):
        sentence_embeddings("./nothing", texts)
