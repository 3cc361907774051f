"""Losses token by token are those of the logits, in the order of the windows."""

import numpy as np
import torch

from heldout.core.row import Row
from heldout.lm.load import load_model
from heldout.lm.measuring.token_nats import token_nats_of
from heldout.lm.tokenize import tokenize_row


@torch.no_grad()
def test_losses_come_in_the_order_of_the_windows(tiny_model_dir, english_text):
    tiny = load_model(str(tiny_model_dir), device="cpu")
    texts = [english_text[at : at + length] for at, length in ((0, 80), (200, 160), (400, 40))]
    rows = [Row(i, ({"role": "text", "content": text},), str(i)) for i, text in enumerate(texts)]
    windows = [tokenize_row(row, tiny.tokenizer, 256).windows[0] for row in rows]
    found = token_nats_of(tiny.model, windows, tiny.tokenizer, batch_size=2)
    for window, nats in zip(windows, found, strict=True):
        logits = tiny.model(torch.tensor([window.input_ids])).logits[0, :-1]
        log_p = logits.log_softmax(1)
        expected = [
            -log_p[t, label].item() for t, label in enumerate(window.labels[1:]) if label != -100
        ]
        np.testing.assert_allclose(nats, expected, rtol=1e-4, atol=1e-4)
