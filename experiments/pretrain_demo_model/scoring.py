"""Bits per byte of a causal model on whole documents, and those of general compressors."""

import lzma
import math
import zlib

import torch


def nll_nats(model, documents, eos, window=512, stride=256):
    """Sum of token losses in nats of `documents` (token lists), and the number of scored tokens.

    Each document is scored alone, from an EOS on. Windows of at most `window` tokens slide by
    `stride`: every token is scored once, with at least `window - stride` tokens before it where the
    document has so many. One forward of one window at a time.
    """
    total, num_tokens = 0.0, 0
    with torch.inference_mode():
        for document in documents:
            tokens = torch.tensor([eos, *document])
            scored_until = 0
            for start in range(0, len(tokens), stride):
                part = tokens[start : start + window]
                first = scored_until + 1 - start
                if first >= len(part):
                    break
                logits_TV = model(input_ids=part[None], use_cache=False).logits[0].float()
                losses = torch.nn.functional.cross_entropy(
                    logits_TV[first - 1 : -1], part[first:], reduction="sum"
                )
                total += losses.item()
                num_tokens += len(part) - first
                scored_until = start + len(part) - 1
    return total, num_tokens


def bits_per_byte(nats, texts):
    """Nats of loss over all of `texts` as bits per UTF-8 byte."""
    return nats / math.log(2) / num_bytes(texts)


def num_bytes(texts):
    """UTF-8 bytes of all `texts`."""
    return sum(len(text.encode()) for text in texts)


def compressed_bits_per_byte(texts, primed_with=()):
    """Bits per byte of zlib (level 9) and xz (preset 9e) on the joined texts.

    Plain: the compressor sees only these texts, all of them in one stream. With `primed_with`, xz
    first reads those: the difference of the two sizes is counted, with a dictionary of 64 MiB.
    """
    joined = "\n".join(texts).encode()
    figures = {
        "zlib": 8 * len(zlib.compress(joined, 9)) / len(joined),
        "xz": 8 * len(lzma.compress(joined, preset=9 | lzma.PRESET_EXTREME)) / len(joined),
    }
    if primed_with:
        before = "\n".join(primed_with).encode() + b"\n"
        sizes = [
            len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
            for data in (before, before + joined)
        ]
        figures["xz_primed"] = 8 * (sizes[1] - sizes[0]) / len(joined)
    return figures
