"""The page says what the run folder holds, and nothing where the folder holds nothing."""

import base64
import hashlib
import json
import re
from importlib import resources

import made_up_run
import numpy as np
import page_text
import pytest
from jsonschema import Draft202012Validator

from heldout.core.environment import environment
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.report.card import model_card
from heldout.report.page import chart_library, render_report, write_comparison, write_run_report

SECTIONS = [
    "causes",
    "curves",
    "documents",
    "gap",
    "samples",
    "certificate",
    "recipe",
    "numbers",
]


def sections(page: str) -> list[str]:
    return [attrs["id"] for tag, attrs in page_text.read(page).elements if tag == "section"]


def charts(page: str) -> dict:
    return page_text.figures(page)["charts"]


def test_report_holds_every_section_in_order(run):
    page = render_report([run])
    assert sections(page) == SECTIONS
    links = [a["href"][1:] for tag, a in page_text.read(page).elements if tag == "a"]
    assert links == ["main", *SECTIONS]


def test_report_leads_with_the_verdict(run):
    text = page_text.visible(render_report([run]))
    verdict = made_up_run.verdict()
    position = text.index(verdict.headline)
    for name, judged in verdict.verdicts.items():
        after = text.index(f"{name.capitalize()} ", position)
        assert text.index(judged.sentence) > after
    for word in ("Good", "Caution", "Problem", "Not measured"):
        assert word in text
    assert position < text.index("Training and validation loss")


def test_verdicts_are_told_by_word_and_icon_not_by_color_alone(run):
    page = render_report([run])
    for word in ("Good", "Caution", "Problem", "Not measured"):
        assert f'<span class="word">{word}</span>' in page
    signs = re.findall(r"\.(green|yellow|red|unknown)\b[^}]*--sign: url\((.*?)\);", page)
    assert len({sign for _, sign in signs}) == len({color for color, _ in signs}) == 4


def test_tiles_say_gain_peak_saving_and_cost(run):
    text = page_text.visible(render_report([run]))
    losses = {
        model: run.losses(model, "test") for model in ("base", "best", "last", "fixed_epochs")
    }
    gain = losses["best"].minus(losses["base"])
    assert f"−{-gain.value:.3f} nats/token" in text
    assert f"interval −{-gain.interval.low:.3f} to −{-gain.interval.high:.3f}" in text
    before, after = (np.exp(losses[model].nats_per_token) for model in ("base", "best"))
    assert f"perplexity {before:.1f} → {after:.1f}" in text
    assert "Epoch 2.5" in text
    assert "step 100 of 200 trained" in text
    assert f"{losses['last'].minus(losses['best']).value:.3f} nats/token" in text
    assert "against 5 epochs without regularization" in text
    assert "15 of 20 planned epochs not run" in text
    assert "7 min 12 s" in text


def test_curves_carry_band_kept_marker_control_and_base_level(run):
    figure = charts(render_report([run]))["loss-curves"]
    history = run.history()
    drawn = [mark["ys"] for mark in figure["marks"]]
    for name in ("validation_nll", "train_nll"):
        assert pytest.approx([entry[name] for entry in history], rel=1e-5) in drawn
    assert sum(mark.get("dash") == "dash" for mark in figure["marks"]) == 2
    kept = figure["marks"][-1]
    lowest = min(entry["validation_nll"] for entry in history)
    assert (kept["xs"], kept["ys"]) == ([2.5], [pytest.approx(lowest, rel=1e-5)])
    level, place = figure["rules"]
    assert level["y"] == pytest.approx(history[0]["validation_nll"], rel=1e-5)
    assert (place["x"], place["label"]) == (2.5, "kept")


def test_document_figures_pair_training_rows_with_unseen_ones(run):
    figure = charts(render_report([run]))["documents-dots"]
    dots = [mark for mark in figure["marks"] if "dash" not in mark]
    assert [len(mark["xs"]) for mark in dots] == [200, 240]
    base = run.losses("base", "test")
    expected = base.nll_nats_D / base.num_tokens_D
    assert np.allclose(dots[1]["xs"], expected, atol=1e-5)


def test_many_documents_are_thinned_but_counted_whole(run):
    rng = np.random.default_rng(0)
    many = {name: made_up_run._documents(3000, 2 + rng.random(), seed=9) for name in "ab"}
    run.save_losses("base", "train", many["a"])
    run.save_losses("best", "train", many["b"])
    page = charts(render_report([run]))
    assert len(page["documents-dots"]["marks"][1]["xs"]) == 400
    shares = page["documents-change"]["marks"][0]["ys"]
    assert sum(shares[1:-1:2]) == pytest.approx(100, abs=1e-3)


def test_forest_shows_every_paired_difference(run):
    figure = charts(render_report([run]))["unseen-differences"]
    assert [label["text"] for label in figure["labels"]] == [
        "Fixed epochs − base model",
        "Last − base model",
        "Kept − base model",
        "Kept − last checkpoint",
        "Kept − fixed epochs",
    ]


def test_samples_stand_side_by_side_and_equal_texts_once(run):
    page = render_report([run])
    text = page_text.visible(page)
    assert text.count("petroleum and petroleum products, fish, metals, machinery, ships") == 1
    assert "Kept (best) = Last checkpoint" in text
    assert "(nothing)" in text


def test_certificate_shows_rows_hash_openings_and_seed(run):
    text = page_text.visible(render_report([run]))
    assert "The sealed test part was opened once." in text
    assert "Sealed test 240 62 18,530" in text
    assert run.read_json("data.json")["sha256_parts"]["test"] in text
    assert "final evaluation of base, best, last and fixed_epochs" in text
    assert "this one training seed (7)" in text
    assert "still had these hashes" in text


def test_certificate_leaves_out_a_column_without_numbers(run):
    data = run.read_json("data.json")
    del data["tokens"]
    run.write_json("data.json", data)
    text = page_text.visible(render_report([run]))
    assert "Scored tokens" not in text
    assert "Sealed test 240 62 " in text


def test_certificate_tells_of_a_test_part_that_was_changed(run):
    with run.path("data/test.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    text = page_text.visible(render_report([run]))
    assert "no longer have these hashes: Test" in text


def test_writing_a_report_opens_no_seal(run):
    before = run.test_openings
    write_run_report(run)
    assert run.test_openings == before
    list(run.open_test("a second look"))
    assert "was opened twice" in page_text.visible(render_report([run]))


def test_settings_that_were_changed_come_first(run):
    text = page_text.visible(render_report([run]))
    changed = text.index("Set in this recipe")
    rest = text.index("settings at the default")
    for key in ("model.lora_rank 16 8", "train.seed 7 0", "control.fixed_epochs 5 0"):
        assert changed < text.index(key) < rest
    assert rest < text.index("eval.batch_size 16")


def test_training_section_tells_search_checks_and_dropped_rows(run):
    page = render_report([run])
    text = page_text.visible(page)
    assert "9 rows are longer than data.max_length" in text
    assert "empty completion 3" in text
    search = charts(page)["rate-search"]["marks"]
    assert search[0]["xs"] == [1e-4, 3e-4, 1e-3]
    assert search[1]["xs"] == [3e-3]
    assert search[2]["xs"] == [3e-4]


def test_a_search_tells_what_was_stopped_and_what_the_training_began_with(run):
    found = run.read_json("search.json")
    found["trials"][2] |= {"steps": 20, "stopped_early": True}
    for trial in found["trials"]:
        trial["seconds"] = 60.0
    run.write_json("search.json", {**found, "handed_on": 40})
    page = render_report([run])
    drawn = charts(page)["rate-search"]["marks"]
    assert [each["xs"] for each in drawn] == [[1e-4, 3e-4], [1e-3], [3e-3], [3e-4]]
    text = page_text.visible(page)
    assert "Its 40 steps are the first of the training that follows" in text
    # 40 and 40 steps, 20 of the stopped one, 12 of the diverged one, less the 40 handed on.
    assert "Beside that training the search took 72 steps." in text
    assert "3 min 00 s of it the search for the learning rate" in text


def test_training_section_shows_the_certificate_of_a_search_over_grids(run):
    page = render_report([run])
    text = page_text.visible(page)
    assert "Certified after 7 points: none of the 4 neighbors is surely better." in text
    assert "Weight decay rate 0.8 diverged." in text
    figure = charts(page)["grid-search"]
    points = [mark for mark in figure["marks"] if "dash" not in mark]
    assert [mark["xs"] for mark in points] == [[0.031], [0.004], [0.02]]
    assert "max epochs 2.5 in place of 5" in figure["labels"][0]["text"]
    run.write_json("tuning.json", {"trials": [], "chosen": None})
    assert "grid-search" not in charts(render_report([run])), "the search is not at its end"


def test_training_section_shows_what_a_search_tried_and_how_often_it_looked(run):
    chosen = {"train.learning_rate": 2e-3, "regularizers.weight_decay.rate": 0.4}
    compared = [
        ({**chosen, "train.learning_rate": 1e-3}, 2, 0.004, (-0.006, 0.015)),
        ({"train.learning_rate": 2e-3, "regularizers.ema.used": False}, 1, 0.031, (0.012, 0.05)),
    ]
    keys = ("point", "num_seeds", "difference", "interval")
    rows = [
        dict(zip(keys, (*row[:3], {"low": row[3][0], "high": row[3][1]}), strict=True))
        for row in compared
    ]
    sentence = "Of 3 trainings the lowest is learning_rate 0.002, weight_decay.rate 0.4."
    found = {"sentence": sentence, "chosen": chosen, "neighbors": [], "compared": rows}
    run.write_json("tuning.json", found)
    looks = {"trainings": 4, "evaluations": 21}
    run.write_json("result.json", {**run.read_json("result.json"), "validation_looks": looks})
    page = render_report([run])
    text = page_text.visible(page)
    assert sentence in text
    assert "The validation part chose among 21 evaluations of 4 trainings" in text
    figure = charts(page)["recipe-search"]
    points = [mark for mark in figure["marks"] if "dash" not in mark]
    assert [mark["xs"] for mark in points] == [[0.004], [0.031]]
    assert figure["labels"][0]["text"].startswith("learning rate 0.001 (2 seeds)")
    assert figure["labels"][1]["text"].startswith("without ema")


def test_training_section_shows_what_each_part_of_the_recipe_is_worth(run):
    entries = [
        ("regularizers.weight_decay", 0.03, {"low": 0.01, "high": 0.05}, "pays"),
        ("augment.word_dropout", -0.002, {"low": -0.01, "high": 0.006}, "does not pay"),
        ("regularizers.r_drop", None, None, "diverged without"),
    ]
    keys = ("part", "difference", "interval", "verdict")
    parts = [dict(zip(keys, entry, strict=True)) for entry in entries]
    sentence = "Parts of the recipe that surely pay: 2 of 3."
    found = {"sentence": sentence, "parts": parts, "not_tried": ["regularizers.early_stopping"]}
    run.write_json("ablation.json", found)
    page = render_report([run])
    text = page_text.visible(page)
    assert sentence in text
    assert "weight decay +0.030 +0.010 to +0.050 pays" in text
    assert "r drop – diverged without" in text
    assert "early stopping – not tried" in text
    figure = charts(page)["ablation"]
    points = [mark for mark in figure["marks"] if "dash" not in mark]
    assert [mark["xs"] for mark in points] == [[0.03], [-0.002]]


def test_all_measurements_and_what_was_not_measured(run):
    text = page_text.visible(render_report([run]))
    assert "minus fixed epochs, no regularization" in text
    assert "Test bits per byte, kept (best) 1.011 0.990 to 1.030 bits/byte 60 documents" in text
    assert "Task metric, kept (best) No task metric was named: set eval.metric." in text


def test_cross_validation_makes_no_sealed_test_claim(cross_validated):
    page = render_report([cross_validated])
    text = page_text.visible(page)
    assert "No sealed-test claim is made." in text
    assert "Cross-validation over 5 folds" in text
    assert "Sealed test " not in text.replace("Sealed test How", "")
    assert "loss-curves" not in charts(page)
    assert charts(page)["fold-curve"]["marks"][-1]["xs"] == [2.5]
    assert "samples" not in sections(page)


def test_a_cross_validated_run_with_a_test_part_says_that_it_was_opened(cross_validated):
    data = cross_validated.read_json("data.json")
    cross_validated.write_json("data.json", {**data, "rows": {**data["rows"], "test": 40}})
    text = page_text.visible(render_report([cross_validated]))
    assert "No sealed-test claim is made." not in text
    assert "too few groups to set a validation part aside" in text
    assert "The sealed test part " in text


def test_interrupted_run_reports_how_far_it_came(interrupted):
    page = render_report([interrupted])
    text = page_text.visible(page)
    assert "This run was interrupted at epoch 1.5 (step 60), before a verdict" in text
    assert "State of the run: interrupted. Stopped by the user." in text
    assert "so no proof" in text
    assert "has not been opened" in text
    assert sections(page) == ["curves", "certificate", "recipe"]


def test_failed_run_says_so(tmp_path):
    run = Run.create(tmp_path / "failed", Recipe())
    run.write_status("failed", message="The loss is not a number at step 3.")
    text = page_text.visible(render_report([run]))
    assert "This run failed and reached no verdict." in text
    assert "The loss is not a number at step 3." in text


@pytest.mark.parametrize("name", ["everything", *sorted(
    [
        "recipe.toml",
        "environment.json",
        "data.json",
        "checks.json",
        "search.json",
        "tuning.json",
        "history.jsonl",
        "control_history.jsonl",
        "measurements.json",
        "verdict.json",
        "result.json",
        "samples.json",
        "data/test_openings.jsonl",
        "data/test.jsonl",
        "evaluations/base-test.npz",
        "evaluations/best-train.npz",
    ]
)])  # fmt: skip
@pytest.mark.parametrize("fault", ["missing", "broken"])
def test_any_missing_or_broken_file_leaves_the_rest(run, name, fault):
    kept = {"status.json"}
    names = (
        [
            str(path.relative_to(run.folder))
            for path in run.folder.rglob("*")
            if path.is_file() and path.name not in kept
        ]
        if name == "everything"
        else [name]
    )
    for each in names:
        if fault == "missing":
            run.path(each).unlink()
        else:
            run.path(each).write_text('{"cut": ', encoding="utf-8")
    text = page_text.visible(render_report([run]))
    assert run.folder.name in text
    lenient = name.endswith(".jsonl") or name == "everything"
    if fault == "broken" and not lenient:
        assert f"left out: {name}" in text
    if fault == "missing":
        assert "is left out:" not in text


def test_json_of_another_shape_is_named_and_not_drawn(run):
    for name in ("checks.json", "search.json", "tuning.json", "samples.json", "measurements.json"):
        run.write_json(name, {"trials": [1], "measurements": 3})
    text = page_text.visible(render_report([run]))
    for name in ("checks.json", "search.json", "tuning.json", "samples.json", "measurements.json"):
        assert name in text


def test_infinite_and_missing_losses_are_gaps_not_zeros(run):
    entries = [json.dumps({**entry, "train_nll": None}) for entry in run.history()]
    infinite = json.dumps({"step": 240, "epoch": 6.0, "validation_nll": float("inf")})
    run.write_text("history.jsonl", "\n".join([*entries, infinite]) + "\n")
    figure = charts(render_report([run]))["loss-curves"]
    own = [m for m in figure["marks"] if m.get("dash") == "solid" and "name" in m]
    assert len(own) == 1
    assert max(own[0]["xs"]) == 5.0


def test_comparison_sets_runs_side_by_side(tmp_path):
    first = made_up_run.made_up_run(tmp_path / "first")
    second = made_up_run.made_up_run(tmp_path / "second", shift=-0.06)
    page = render_report([first, second])
    text = page_text.visible(page)
    assert "2 runs side by side" in text
    assert "not judged on the same" not in text
    drawn = charts(page)
    assert set(drawn) == {"validation-curves", "gains", "against-first"}
    difference = second.losses("best", "test").minus(first.losses("best", "test"))
    assert f"{difference.value:.3f}".replace("-", "−") in str(drawn["against-first"]["labels"])


def test_comparison_warns_where_losses_cannot_be_compared(run, cross_validated, interrupted):
    page = render_report([run, cross_validated, interrupted])
    assert "not judged on the same sealed test part" in page_text.visible(page)
    assert "against-first" not in charts(page)


def test_comparison_tells_equal_names_apart_and_lists_differing_settings(tmp_path):
    first = made_up_run.made_up_run(tmp_path / "a" / "same")
    second = made_up_run.made_up_run(tmp_path / "b" / "same", model="another/model")
    toml = second.path("recipe.toml").read_text().replace("lora_rank = 16", "lora_rank = 64")
    second.write_text("recipe.toml", toml)
    text = page_text.visible(render_report([first, second]))
    assert "a/same" in text
    assert "b/same" in text
    assert "model.lora_rank 16 64" in text
    assert "start from different models" in text


def test_a_report_needs_a_run():
    with pytest.raises(ValueError, match="at least one run"):
        render_report([])


def test_written_pages_are_those_rendered(run, interrupted, tmp_path):
    assert write_run_report(run) == run.path("report.html")
    assert run.path("report.html").read_text(encoding="utf-8") == render_report([run])
    path = write_comparison([run, interrupted], tmp_path / "both.html")
    assert path.read_text(encoding="utf-8") == render_report([run, interrupted])


@pytest.mark.usefixtures("whole_page")
def test_page_fetches_nothing_and_runs_only_its_own_scripts(run):
    reader = page_text.read(render_report([run]))
    addresses = [
        value
        for _, attrs in reader.elements
        for key, value in attrs.items()
        if key in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    policy = next(a["content"] for _, a in reader.elements if "http-equiv" in a)
    assert "default-src 'none'" in policy
    sources = [source for attrs, source in reader.scripts if "type" not in attrs]
    assert sources[0] == chart_library()
    for source in sources:
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe-inline" not in re.search(r"script-src [^;]*", policy)[0]


def test_figures_have_text_alternatives(run):
    reader = page_text.read(render_report([run]))
    plots = [attrs for tag, attrs in reader.elements if tag == "canvas"]
    assert len(plots) == 8
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 40 for attrs in plots)
    tags = [tag for tag, _ in reader.elements]
    figure = next(place for place, tag in enumerate(tags) if tag == "figure")
    assert tags[figure:].count("table") >= len(plots)
    for landmark in ("header", "main", "nav", "footer"):
        assert tags.count(landmark) == 1
    assert tags.count("h1") == 1
    ids = [attrs["id"] for _, attrs in reader.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_pages_and_cards_do_not_name_the_home_folder(run, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setattr("sys.argv", ["heldout", "fit", "--data", "/home/someone/rows.jsonl"])
    made = environment(model="/home/someone/models/mine", sha256={"model": "0"})
    assert made["command"] == "heldout fit --data ~/rows.jsonl"
    run.write_json("environment.json", run.read_json("environment.json") | made)
    run.write_json("data.json", run.read_json("data.json") | {"source": "/home/someone/rows.jsonl"})
    card, page = model_card(run), render_report([run])
    assert "`mine`" in card
    assert "~/models/mine" in page
    assert "someone" not in card + page


def test_withheld_intervals_are_told_and_break_nothing(run):
    measured = run.read_json("measurements.json")
    for entry in measured["measurements"]:
        if entry["status"] == "measured":
            for bounds in (
                entry["interval"],
                *(c["interval"] for c in entry["contrasts"].values()),
            ):
                if bounds:
                    bounds.update(low=None, high=None, method="too few groups for an interval")
    run.write_json("measurements.json", measured)
    text = page_text.visible(render_report([run]))
    assert "too few groups for an interval" in text
    assert "inf" not in text.replace("information", "").replace("inferred", "").split()
    assert "nan" not in text.split()
    assert "too few groups" in model_card(run)
    schema = resources.files("heldout.core") / "schemas" / "measurements.json"
    Draft202012Validator(json.loads(schema.read_text(encoding="utf-8"))).validate(measured)
