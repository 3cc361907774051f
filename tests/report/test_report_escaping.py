"""Text of models, data and files is shown letter by letter, whatever it holds."""

import json

import made_up_run
import page_text
import pytest

from heldout.core.losses import DocumentLosses
from heldout.core.verdict import Verdict, Verdicts
from heldout.report import palette
from heldout.report.chart import shorten
from heldout.report.page import inert_json, render_report

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}'\"`"


@pytest.fixture
def attacked(tmp_path):
    """A run with hostile text wherever text can come from outside."""
    run = made_up_run.made_up_run(tmp_path / "<img src=x onerror=alert(1)>", model=ATTACK)
    data = run.read_json("data.json")
    data["source"] = ATTACK
    data["dropped"] = [{"reason": ATTACK, "count": 2}]
    run.write_json("data.json", data)
    run.write_json("samples.json", [dict.fromkeys(made_up_run.samples()[0], ATTACK)])
    run.write_json("checks.json", [{"name": ATTACK, "status": ATTACK, "message": ATTACK}])
    run.write_status("failed", message=ATTACK)
    list(run.open_test(ATTACK))
    losses = run.losses("base", "test")
    groups = losses.groups_D.astype("U200")
    groups[:] = ATTACK
    for model in ("base", "best"):
        old = run.losses(model, "test")
        run.save_losses(
            model,
            "test",
            DocumentLosses(old.nll_nats_D, old.num_tokens_D, old.num_bytes_D, groups),
        )
    verdict = made_up_run.verdict()
    red = {name: Verdict("red", ATTACK, (ATTACK,)) for name in verdict.verdicts}
    run.write_json("verdict.json", Verdicts(ATTACK, red, verdict.causes).to_json())
    return run


def test_hostile_text_makes_no_elements(attacked, tmp_path):
    other = made_up_run.made_up_run(tmp_path / "</script><b>", model=ATTACK)
    clean = made_up_run.made_up_run(tmp_path / "clean")
    for page, twin in (
        (render_report([attacked]), render_report([clean])),
        (render_report([attacked, other]), render_report([clean, clean])),
    ):
        reader, expected = page_text.read(page), page_text.read(twin)
        assert len(reader.scripts) == len(expected.scripts) == 3
        tags = [tag for tag, _ in reader.elements]
        assert "img" not in tags
        assert not any(key.startswith("on") for _, a in reader.elements for key in a)


def test_hostile_text_is_shown_as_it_stands(attacked):
    text = " ".join(page_text.read(render_report([attacked])).text)
    assert text.count(ATTACK) > 10
    assert "49" not in text.split("onerror")[1][:40]


def test_figures_show_tags_as_letters(attacked):
    """A canvas draws what it is given; the page carries it as letters of a JSON string."""
    figure = page_text.figures(render_report([attacked]))["charts"]["documents-dots"]
    assert figure["marks"][2]["details"]["document"][0] == ATTACK


def test_shorten_keeps_both_ends():
    assert shorten("short", 10) == "short"
    assert shorten("2026-03-14-factbook-strong", 12) == "2026-03…rong"
    assert len(shorten("x" * 99, 12)) == 12


def test_inert_json_neither_ends_nor_opens_an_element():
    value = {"<!--<script>": "</script>&\u2028\u2029"}
    text = str(inert_json(value))
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


def test_inert_json_refuses_what_is_no_json():
    with pytest.raises(ValueError):
        inert_json(float("nan"))


@pytest.mark.parametrize("theme", [0, 1])
def test_text_colors_reach_contrast_aa(theme):
    def luminance(token):
        code = palette.PAIRS[token][theme].lstrip("#")
        channels = [int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(text, ground):
        high, low = sorted((luminance(text), luminance(ground)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    # Of these the texts of figures are: labels, ticks and titles of axes, names of rules.
    for text in ("ink", "muted", "kept", "base"):
        for ground in ("page", "surface"):
            assert contrast(text, ground) >= 4.5, (text, ground)
    for color in ("green", "yellow", "red", "unknown"):
        assert contrast(color, f"{color}_tint") >= 4.5, color
    assert contrast("ink", "yellow_tint") >= 4.5
    for line in ("train", "heldout", "base", *(f"run{i}" for i in range(1, 7))):
        assert contrast(line, "surface") >= 3, line
