import pytest

from heldout.core import augmentation
from heldout.core.augmentation import KeyFacts
from heldout.core.errors import UserError


def test_a_pattern_that_comes_to_no_end_is_refused(monkeypatch):
    monkeypatch.setattr(augmentation, "MOST_SECONDS", 0.1)
    facts = KeyFacts((r"(a|aa|aaa)+$",))
    assert facts.spans("b aaa") == [(2, 5)]
    with pytest.raises(UserError, match=r"comes to no end on a text of 61 characters"):
        facts.spans("a" * 60 + "b")
