import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def scaling_data() -> Path:
    """Measured runs of others; not part of the project."""
    folder = os.environ.get("HELDOUT_REAL_DATA")
    if folder is None:
        pytest.skip("no measured runs: name their folder in HELDOUT_REAL_DATA")
    return Path(folder)
