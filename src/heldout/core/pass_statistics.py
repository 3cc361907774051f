"""What one forward pass over texts tells of each document: more than its loss, at one price."""

# D documents, C confidence bins, P position buckets, K canaries, R references

from dataclasses import dataclass, field

import numpy as np

from heldout.core.losses import DocumentLosses

POSITION_EDGES = (0, 16, 32, 64, 128, 256, 512, 1024)  # tokens from the start; the last is open
SHORT_SUFFIX, LONG_SUFFIX = (10, 20), (50, 50)  # tokens before and in a suffix, of English
CONFIDENCE_BINS = 300  # fine and equal in width; coarser ones are merged from them


@dataclass(frozen=True)
class Suffixes:
    """How the model continues each document from a prefix of it, read off one forward pass.

    NaN in ``nats_D`` where the document has too few scored tokens for both. Greedy decoding
    returns the suffix if and only if every suffix token is the likeliest given the true text.
    """

    prefix_tokens: int
    suffix_tokens: int
    nats_D: np.ndarray  # negative log-probability of the whole suffix
    greedy_D: np.ndarray  # bool: greedy decoding returns it word for word


@dataclass(frozen=True)
class PassStatistics:
    """Of one model on one part, in the order of the rows; sums are over scored tokens."""

    losses: DocumentLosses
    row_index_D: np.ndarray
    suffixes: dict[str, Suffixes]  # "short" (10 + 20 tokens) and "long" (50 + 50)
    zlib_bytes_D: np.ndarray  # of the scored text, compressed alone
    min_k_D: np.ndarray  # mean of the lowest fifth of log-probabilities, nats
    min_k_plus_D: np.ndarray  # the same of (log p - mean) / deviation over the vocabulary
    entropy_nats_D: np.ndarray  # sum of the entropies of the next-token distributions
    brier_D: np.ndarray  # sum of squared errors over the vocabulary, 0 to 2 a token
    bin_tokens_DC: np.ndarray  # tokens by the probability of the likeliest token
    bin_confidence_DC: np.ndarray  # sum of that probability
    bin_correct_DC: np.ndarray  # how often the likeliest token was the true one
    position_nats_DP: np.ndarray  # loss by POSITION_EDGES
    position_tokens_DP: np.ndarray

    def __len__(self) -> int:
        return len(self.losses)


@dataclass(frozen=True)
class Generations:
    """Continuations of the prompts of one part by one model, beside what the documents go on with.

    ``token_ids`` and ``reference_ids`` end before the end-of-text token and have no padding; a
    reference is at most as long as the limit of new tokens. ``own_nats`` and ``reference_nats``
    hold the loss of each of these tokens under the base model, where it was measured.
    """

    prompts: list[str]
    texts: list[str]
    references: list[str]
    token_ids: list[np.ndarray]
    reference_ids: list[np.ndarray]
    ended: np.ndarray  # bool: stopped by itself, before the limit of tokens
    groups: np.ndarray
    row_index: np.ndarray
    decoding: str = "greedy"
    prompt_ids: list[np.ndarray] = field(default_factory=list)
    new_tokens: int = 0  # the limit
    batch_size: int = 0  # greedy text may change with it, by rounding
    own_nats: list[np.ndarray] | None = None
    reference_nats: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class CanaryLosses:
    """Loss of planted secrets beside others that could have been planted, under one model."""

    copies_K: np.ndarray  # how often each stands in the training rows
    nats_K: np.ndarray  # of the secret after its prefix
    reference_nats_KR: np.ndarray  # of R other secrets after the same prefix

    def __len__(self) -> int:
        return len(self.nats_K)


@dataclass(frozen=True)
class PersonalData:
    """Rows of a part whose suffix, by its name in ``PassStatistics``, holds personal data."""

    kinds: dict[str, dict[int, tuple[str, ...]]]  # suffix name -> row index -> kinds of data
