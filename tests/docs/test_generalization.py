"""The headline's figures, on planted lines whose answers are known."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
try:
    from generalization.arms import PEERS
    from generalization.summary import (
        Measured,
        Summary,
        add_grid,
        add_honest,
        add_memorized,
        add_peers,
        outcomes,
        summary,
    )
    from generalization.texts import dealt, paragraphs
    from generalization.work import CELLS, DEFAULT_ARMS, check_arm, items_of
finally:
    sys.path.remove(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from heldout.core.row import Row

GROUPS = np.repeat([f"g{number}" for number in range(40)], 5)
TOKENS = np.full(200, 50)
NOISE = np.random.default_rng(0).normal(0, 5, 200)  # nats of a document


def line(shift, *, memorized=0, validation=(3.0,), noise=0.0, tokens=100, seconds=10.0, **more):
    """A training whose test loss is 3 nats per token and so much more."""
    nll = TOKENS * (3 + shift) + noise
    kept = {"nll": nll.tolist(), "memorized": memorized}
    return {
        "kept": {"last": kept, "best": kept},
        "validation": {"best": list(validation)},
        "temperature": {"nll": (nll - 5).tolist(), "validation": min(validation) - 0.1},
        "tokens": tokens,
        "seconds": seconds,
        **more,
    }


def cell(name="a", fit=0.0, peer=0.1, honest=0.0, **arms):
    lines = {
        "fit": [[line(fit)]],
        "honest": [[line(honest)]],
        **{each.name: [[line(peer, noise=NOISE)]] for each in PEERS},
        **arms,
    }
    return Measured(name, TOKENS, GROUPS, lines)


def test_a_cell_is_won_where_fit_is_lower_and_lost_where_it_is_higher():
    differences = {
        "won": cell().difference([TOKENS * 2.9], [TOKENS * 3.0 + NOISE]),
        "lost": cell().difference([TOKENS * 3.1], [TOKENS * 3.0 + NOISE]),
        "open": cell().difference([TOKENS * 3.0 + NOISE[::-1]], [TOKENS * 3.0 + NOISE]),
    }
    assert outcomes(differences) == {"won": "won", "lost": "lost", "open": "open"}
    assert differences["won"].value == pytest.approx(-0.1 - NOISE.sum() / TOKENS.sum())


def test_holm_goes_over_the_cells_of_a_comparator():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 5, 200)
    noise -= noise.mean()
    sizes = np.arange(0.5, 4, 0.02)  # nats of a document
    found = [cell().difference([TOKENS * 3.0], [TOKENS * 3.0 + noise + size]) for size in sizes]
    alone = next(each for each in found if 0.02 < each.p_value < 0.04)
    still = cell().difference([TOKENS * 3.0 + noise], [TOKENS * 3.0 + noise[::-1]])
    assert outcomes({"a": alone}) == {"a": "won"}
    assert outcomes({"a": alone, "b": still, "c": still})["a"] == "open"


def test_differences_are_averaged_over_seeds_first():
    first = [TOKENS * 3.0, TOKENS * 3.2]
    assert cell().difference(first, first[::-1]).value == pytest.approx(0, abs=1e-12)
    assert cell().difference(first, [TOKENS * 3.0, TOKENS * 3.0]).value == pytest.approx(0.1)


def test_the_share_of_cells_won_is_that_of_the_strongest_peer():
    strong = PEERS[3].name
    cells = [cell(name, **{strong: [[line(-0.1, noise=NOISE)]]}) for name in "ab"]
    cells += [cell("c"), cell("d")]
    found = Summary()
    add_peers(found, cells, {each.name: each.losses("fit", "best") for each in cells})
    assert found.figures["share_cells_won"] == 0.5
    assert found.figures[f"share_cells_won_{strong}_last"] == 0.5
    assert found.figures[f"share_cells_won_{PEERS[0].name}_best"] == 1.0


def test_rates_are_chosen_on_validation_and_again_with_a_temperature():
    best_on_test = line(-0.5, validation=(3.4, 3.2))
    chosen = line(0.2, validation=(3.5, 3.1))
    chosen["temperature"]["validation"] = 3.05
    with_temperature = line(0.3, validation=(3.3,))
    with_temperature["temperature"]["validation"] = 2.9
    one = cell(fit=0.1, honest=0.0)
    one.lines["honest"] = [[best_on_test, chosen, with_temperature]]
    found = Summary()
    add_honest(found, [one], {"a": one.losses("fit", "best")}, "fit")
    assert found.figures["gain_honest_a"] == pytest.approx(0.1)
    assert found.figures["gain_temperature_a"] == pytest.approx(0.3 - 5 / 50 - 0.1)
    assert found.figures["time_share"] == pytest.approx(1 / 3)


def test_the_grid_is_chosen_on_validation_and_its_gain_and_cost_compared():
    tempting = line(-0.9, validation=(3.0,), tokens=600)
    good = line(-0.1, validation=(2.9,), tokens=400)
    average = {"nll": (TOKENS * 2.8).tolist(), "memorized": 0}
    good["kept"]["average_1"] = average
    good["validation"]["average_1"] = [2.95, 2.7]
    for each in (tempting, good):
        del each["kept"]["last"]
    one = cell(grid=[[tempting, good]], **{"trials:10": [[line(-0.1, tokens=250)]]})
    found = Summary()
    add_grid(found, [one])
    assert found.figures["grid_gain"] == pytest.approx(0.2)
    assert found.figures["grid_gain_share"] == pytest.approx(0.5)
    assert found.figures["cost_share"] == pytest.approx(0.25)


def test_memorized_rows_count_where_a_peer_memorizes_ten():
    name = PEERS[0].name
    found = Summary()
    add_memorized(found, [cell(**{name: [[line(0, memorized=9)]]})], "fit")
    assert "memorized_share" not in found.figures
    assert found.missing == ["memorized_share: no peer memorizes 10 rows"]
    one = cell(fit=0, **{name: [[line(0, memorized=20)]]})
    one.lines["fit"] = [[line(0, memorized=5)]]
    add_memorized(found, [one], "fit")
    assert found.figures["memorized_share"] == 0.25


def test_without_a_grid_its_figures_are_missing():
    found = summary([cell()], [])
    assert {"grid_gain_share", "cost_share"} < set(found.missing)
    assert found.figures["share_cells_won"] == 1.0
    assert summary([], []).missing == ["any cell with all of its arms"]


def test_the_order_of_work_gives_a_first_look_at_each_data_set():
    items = items_of(DEFAULT_ARMS, CELLS)
    turns = list(dict.fromkeys((item.cell.name, item.seed) for item in items))
    assert turns[:3] == [("factbook-50", 0), ("docstrings-50", 0), ("manual-50", 0)]
    assert turns[-1] == ("manual-1000", 0)
    assert len(turns) == 3 * (3 + 3 + 1)
    settings = {item.arm: item.settings for item in items}
    assert settings["transformers"] == settings["transformers_example"]
    assert len(items_of(["grid"], CELLS)) == 2 * 24
    assert {item.seed for item in items_of(["recipe:full"], CELLS)} == {0}
    with pytest.raises(ValueError, match="trials:N"):
        check_arm("trials:none")


def test_the_sealed_test_is_the_same_for_all_seeds_and_apart_from_training():
    groups = {
        f"g{number}": [
            Row(
                10 * number + place,
                ({"role": "text", "content": f"{number} {place}"},),
                f"g{number}",
            )
            for place in range(9)
        ]
        for number in range(250)
    }
    few, many, other = dealt(groups, 50, 0), dealt(groups, 200, 0), dealt(groups, 50, 1)
    assert few["test"] == many["test"] == other["test"]
    assert few["train"] == many["train"][:50] != other["train"]
    assert few["validation"] == many["validation"] != other["validation"]
    assert len(few["test"]) >= 500
    parts = [{row.group for row in many[part]} for part in ("train", "validation", "test")]
    assert len(parts[2]) >= 80
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]


def test_manual_pages_become_plain_sentences():
    page = (
        ".TH X 1\n.SH NAME\nx \\- a tool\n.PP\nPrints the \\fBname\\fR of each file that it is "
        "given, one on a line\\&, in\nthe order of the arguments.\n.nf\nPrints nothing at all, as "
        "this is an example and no sentence of the page.\n.fi\n"
    )
    assert paragraphs(page) == [
        "Prints the name of each file that it is given, one on a line, in the order of the "
        "arguments."
    ]
