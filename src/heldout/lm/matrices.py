"""Which parameters are matrices of a product: what weight decay is for.

Not all that has two axes is one: the state matrix of a selective scan is an exponent, a biased
expert keeps a bias for each expert, mixing shares are factors. The table is checked by hand against
every causal architecture of transformers 5.23, and by a test that watches how each is used.
"""

import re

import torch

_NOT_A_MATRIX = re.compile(
    r"A_log|D"  # rates and skips of selective scans (Mamba, Jamba, Zamba, Kimi-Linear)
    r"|\w*bias|b\d"  # one for each expert, head or block (GPT-OSS, RecurrentGemma, XLNet)
    r"|time_(mix|decay|first)_?\w*"  # RWKV
    r"|\w*scale|\w*_emb(ed)?|probe|\w*_extensor"  # factors, and rows that are added or put in
)


def is_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Whether the parameter multiplies vectors: a linear map, an embedding, a filter, an expert."""
    own = [part for part in name.split(".") if part not in ("default", "original_module")]
    return parameter.ndim >= 2 and not _NOT_A_MATRIX.fullmatch(own[-1])
