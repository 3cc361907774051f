import pytest

from heldout.core import augmentation
from heldout.core.augmentation import KeyFacts
from heldout.core.errors import UserError
from heldout.core.recipe import load_recipe


def test_a_pattern_that_takes_too_long_is_refused(monkeypatch):
    facts = KeyFacts((r"[a-z]+ \d",))
    assert facts.spans("row 7") == [(0, 5)]
    monkeypatch.setattr(augmentation, "MOST_SECONDS", 1e-4)
    with pytest.raises(UserError, match=r"comes to no end on a text of 4,000,000 characters"):
        facts.spans("row " * 1_000_000)


def test_a_recipe_takes_the_patterns_that_are_looked_for():
    assert load_recipe("plain", [r"data.key_facts=['\p{Lu}\d+']"]).data.key_facts
    with pytest.raises(UserError, match=r"data\.key_facts must be regular expressions"):
        load_recipe("plain", ["data.key_facts=['(']"])
