import subprocess
import sys

import pytest

import heldout
from heldout.core.discovery import build, entries_of, list_entries, plugin_class
from heldout.core.errors import UserError


def test_every_entry_says_what_it_is_costs_and_comes_from():
    entries = list_entries()
    assert {"regularizer", "probe", "recipe"} <= {entry.kind for entry in entries}
    for entry in entries:
        assert entry.summary, entry
        assert entry.source, entry
        assert entry.cost, entry


def test_listing_imports_no_torch():
    code = (
        "import sys; from heldout.core.discovery import list_entries; list_entries();"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert listed.stdout.decode().strip() == "[]"


def test_unknown_names_and_parameters():
    with pytest.raises(UserError, match="did you mean 'weight_decay'"):
        build("regularizer", "weigth_decay", {})
    with pytest.raises(UserError, match="Unknown parameter 'rates' of weight_decay: did you mean"):
        build("regularizer", "weight_decay", {"rates": 1})
    with pytest.raises(UserError, match=r"WeightDecay\(rate=...\) must be 0 or more, got -1."):
        build("regularizer", "weight_decay", {"rate": -1})


def test_every_regularizer_is_a_name_of_the_package():
    """Read from the files: one more file is one more name, and listing them imports no torch."""
    code = (
        "import sys, heldout; assert 'heldout.core.discovery' not in sys.modules;"
        "assert 'SAM' in dir(heldout); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for entry in entries_of("regularizer"):
        if entry.module.startswith("heldout."):
            assert entry.class_name in dir(heldout)
            assert getattr(heldout, entry.class_name) is plugin_class(entry)
    assert {"attach", "fit", "Steps", "WeightDecay"} <= set(heldout.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'WeightDeacy'"):
        heldout.WeightDeacy  # noqa: B018
