"""Pages kept as examples: drawings hold only what is seen."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "recital"


@pytest.fixture
def drawn(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import drawn

    yield drawn
    sys.modules.pop("drawn")


def test_a_slim_page_keeps_what_is_seen_and_says_each_style_once(drawn):
    line = '<path class="line" style="stroke: red;" d="M0,0"></path>'
    pointer = '<g class="draglayer x"><g class="xy"><rect class="drag"></rect></g></g>'
    page = (
        '<head></head><p class="kept" style="color: blue;">text</p><div class="drawn wide">'
        f'<svg class="main-svg" width="9">{pointer}<g class="empty"><g></g></g>{line}{line}</svg>'
        "</div>"
    )
    path = '<path class="s0" d="M0,0"></path>'
    assert drawn.slim(page) == (
        "<head><style>\n.drawn .s0 { stroke: red; }\n</style>\n</head>"
        '<p class="kept" style="color: blue;">text</p><div class="drawn wide">'
        f'<svg width="9">{path}{path}</svg></div>'
    )
