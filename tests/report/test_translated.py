import json

import page_text
import pytest

from heldout.core import language
from heldout.core.language import Sentences, using
from heldout.report import page
from heldout.report.translated import translated_figure, translated_page

TABLE = {"Sealed test": "封存的测试集", "{0} rows & more": "{0} 行以上", "epoch": "轮"}


@pytest.fixture
def small_table(monkeypatch):
    monkeypatch.setattr(language, "sentences", lambda name: Sentences(TABLE))


@pytest.mark.usefixtures("small_table")
@pytest.mark.parametrize(
    ("english", "said"),
    [
        ("<p>Sealed test</p>", "<p>封存的测试集</p>"),
        ("<p>3 rows &amp; more <b>x &lt; y</b></p>", "<p>3 行以上 <b>x &lt; y</b></p>"),
        ('<i aria-label="Sealed test" data-x="epoch">a</i>',
         '<i aria-label="封存的测试集" data-x="epoch">a</i>'),
        ('<div dir="auto">epoch<br>epoch<b>epoch</b></div>epoch',
         '<div dir="auto">epoch<br>epoch<b>epoch</b></div>轮'),
        ("<td translate='no'>epoch</td><td>epoch</td>", "<td translate='no'>epoch</td><td>轮</td>"),
        ("<style>a > b {epoch}</style><code>epoch</code>",
         "<style>a > b {epoch}</style><code>epoch</code>"),
        ("<!DOCTYPE html><html lang=\"en\"><br><svg><path d='M0'/></svg>epoch",
         "<!DOCTYPE html><html lang=\"zh-CN\"><br><svg><path d='M0'/></svg>轮"),
    ],
)  # fmt: skip
def test_words_change_and_data_and_markup_do_not(english, said):
    assert translated_page(english) == english
    with using("zh"):
        assert translated_page(english) == said


@pytest.mark.usefixtures("small_table")
def test_words_of_figures_change():
    """Names of documents are data, and so are the names of colors and dashes."""
    mark = {"name": "epoch", "hover": "epoch\n3 rows & more", "token": "epoch", "xs": [1]}
    figure = {"x": {"ticks": [[1.0, "epoch"]]}, "marks": [{**mark, "details": {"who": ["epoch"]}}]}
    with using("zh"):
        said = translated_figure(figure)
    assert said["x"] == {"ticks": [[1.0, "轮"]]}
    told = {"name": "轮", "hover": "轮\n3 行以上", "details": {"who": ["epoch"]}}
    assert said["marks"] == [{**mark, **told}]


def test_a_page_is_the_same_but_for_its_words(run):
    english = page.render_report([run])
    with using("zh"):
        said = page.render_report([run])
    assert '<html lang="zh-CN">' in said
    tags = [tag for tag, _ in page_text.read(english).elements]
    assert [tag for tag, _ in page_text.read(said).elements] == tags
    assert json.dumps(page_text.figures(said)).count('"xs"') == json.dumps(
        page_text.figures(english)
    ).count('"xs"')
    for attrs, source in page_text.read(english).scripts:
        if attrs.get("type") != "application/json":
            assert source in said
