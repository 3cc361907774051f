"""How much a token holds, and how many tokens hold what a number of them is meant to.

Lengths in tokens, such as 50 for a memorized suffix, were published for tokenizers that know the
language. One that hardly knows a script spends several tokens on a character, and 12 tokens are
four Chinese characters instead of fifty letters.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from heldout.core.graphemes import num_graphemes, num_letters

MEANT_LETTERS = 4.0  # a token of English under a tokenizer made for it
LEAST_LETTERS = 1.5  # under a small vocabulary; with as many, lengths are left as published


@dataclass(frozen=True)
class TokenSize:
    """Means over some text; letters are Latin ones, of which a Chinese character says three."""

    letters_per_token: float = MEANT_LETTERS
    characters_per_token: float = MEANT_LETTERS

    @classmethod
    def of(cls, texts: Iterable[str], num_tokens: int) -> "TokenSize":
        """Of all texts together, which the tokenizer splits into ``num_tokens``."""
        num_characters = letters = 0
        for text in texts:
            num_characters += num_graphemes(text)
            letters += num_letters(text)
        if not num_tokens or not letters:
            return cls()
        return cls(letters / num_tokens, num_characters / num_tokens)

    @property
    def is_small(self) -> bool:
        """Whether a token is a piece of a character, or hardly more than a letter."""
        return self.characters_per_token < 1 or self.letters_per_token < LEAST_LETTERS

    def tokens(self, meant: int) -> int:
        """As many tokens as hold the text of ``meant`` English ones; ``meant`` unless small."""
        if not self.is_small:
            return meant
        return max(meant, round(meant * MEANT_LETTERS / self.letters_per_token))

    @property
    def warning(self) -> str:
        """What a small size means for figures in tokens; empty where there is nothing to say."""
        if not self.is_small:
            return ""
        each = self.characters_per_token
        times = MEANT_LETTERS / self.letters_per_token
        if each < 1:
            size = (
                f"The tokenizer hardly knows the script of these rows: {1 / each:.1f} tokens a "
                "character."
            )
        else:
            size = f"The tokenizer cuts these rows small: {each:.1f} characters a token."
        lengths = (
            "Lengths in tokens (what counts as memorized or copied, and texts that are generated) "
            f"are {times:.1f} times the usual ones, to hold as much text."
        )
        return f"{size} {lengths}"


ENGLISH_TOKENS = TokenSize()  # lengths as they were published
