"""Where the texts of a diagnosis come from."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TextSources:
    """Each empty where it is not given; a run has its own."""

    train: str
    heldout: str
    domains: Mapping[str, str]
    most_rows: int
    open_test: bool = False  # also of a run that can still be resumed
