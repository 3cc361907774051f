import shutil

import made_up_run
import pytest

from heldout.core.run import Run
from heldout.report import page


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory):
    """A complete run with made-up numbers, not to be changed."""
    return made_up_run.made_up_run(tmp_path_factory.mktemp("runs") / "factbook-smollm2")


@pytest.fixture
def run(shared_run, tmp_path):
    """A copy of the complete run, for a test to change."""
    return Run(shutil.copytree(shared_run.folder, tmp_path / "factbook-smollm2"))


@pytest.fixture
def cross_validated(tmp_path):
    return made_up_run.made_up_cross_validation(tmp_path / "letters-smollm2")


@pytest.fixture
def interrupted(tmp_path):
    return made_up_run.made_up_interrupted(tmp_path / "cut-short")


@pytest.fixture
def whole_page():
    """Asked for by tests that need Chart.js itself in the page."""


@pytest.fixture(autouse=True)
def small_page(request, monkeypatch):
    """Leave out the 210 kB of Chart.js, which no test of the text looks at."""
    is_browser = request.node.get_closest_marker("browser") is not None
    if not is_browser and "whole_page" not in request.fixturenames:
        monkeypatch.setattr(page, "chart_library", lambda: "'Chart.js';")
