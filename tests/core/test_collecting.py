"""All objects are seldom searched while a command imports, and as usual once there is a model."""

import gc
import sys

import pytest

from heldout.cli.main import main
from heldout.core.collecting import search_as_usual, seldom_searched
from heldout.lm.load import load_model


def test_a_model_ends_it():
    usual = gc.get_threshold()
    with seldom_searched():
        assert gc.get_threshold()[2] > 10 * usual[2]
        load_model("package:heldout", device="cpu")
        assert gc.get_threshold() == usual
    assert gc.get_threshold() == usual
    search_as_usual()  # outside, nothing is changed
    assert gc.get_threshold() == usual


def test_a_command_leaves_it_as_it_was(monkeypatch, capsys):
    usual = gc.get_threshold()
    seen = []
    monkeypatch.setattr(sys, "argv", ["heldout", "list", "law"])
    monkeypatch.setattr(
        "heldout.core.discovery.list_entries", lambda: seen.append(gc.get_threshold()) or []
    )
    with pytest.raises(SystemExit):
        main()
    assert seen
    assert all(threshold[2] > usual[2] for threshold in seen)
    assert gc.get_threshold() == usual
