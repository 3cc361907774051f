"""The page of a scaling law in Chromium: two widths, light and dark."""

import numpy as np
import pytest
from test_browser import BOXES, PLOTS, THEMES, WIDTHS, browser, overlap, requested, show, size_of

from heldout.jobs.planning.laws import laws
from heldout.scaling.lovelace import Lovelace
from heldout.scaling.runs import points

pytestmark = [pytest.mark.browser]
__all__ = ["browser"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("law")
    N, D, epochs = (
        axis.ravel()
        for axis in np.meshgrid(np.geomspace(2e7, 1e9, 4), np.geomspace(1e9, 5e10, 4), [1, 8, 40])
    )
    values = {
        "E": 1.8,
        "A": 400.0,
        "B": 2000.0,
        "P": 0.05,
        "alpha": 0.34,
        "beta": 0.37,
        "delta": 0.6,
        "kappa": 0.8,
    }
    loss = Lovelace().predict(points(N, D, D / epochs), values)
    loss = loss * np.exp(0.01 * np.random.default_rng(0).normal(size=loss.size))
    lines = [f"{n},{d},{e},{v}" for n, d, e, v in zip(N, D, epochs, loss, strict=True)]
    path = folder / f"{'a-long-name-' * 6}.csv"
    path.write_text("\n".join(["N,D,epochs,loss", *lines]), encoding="utf-8")
    return laws(path, out=folder, axes=("epochs",), num_resamples=50).report.as_uri()


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_page_is_whole(browser, address, width, theme):
    assert size_of(address) <= 400_000
    show(browser, address, width, theme)
    scroll, inner = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert inner == width
    assert scroll <= inner
    boxes = browser.execute_script(BOXES)
    assert len(boxes) >= 7
    assert not [
        (one, other)
        for index, (one, box) in enumerate(boxes)
        for other, second in boxes[index + 1 :]
        if overlap(box, second)
    ]
    plots = browser.execute_script(PLOTS)
    assert len(plots) == 6
    for plot in plots:
        assert plot["height"] > 90, plot
        assert abs(plot["width"] - plot["room"]) <= 1, plot
        assert plot["marks"] > 0, plot
        assert plot["colors"] > 3, plot
    assert browser.execute_script("return document.documentElement.dataset.drawn") == theme
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "DEBUG"] == []
    assert [a for a in requested(browser) if not a.startswith(("file:", "data:"))] == []
