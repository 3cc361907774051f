import numpy as np
import pytest

from heldout.core.errors import UserError
from heldout.scaling.table import read_runs

GOOD = "N,D,loss\n1e7,1e9,4.1\n2e7,1e9,3.9\n2e7,4e9,3.5\n"


def write(tmp_path, text):
    path = tmp_path / "runs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_are_recognized(tmp_path):
    text = "Run Name,N_params,U unique tokens,Tokens,Val-Loss\na,1e7,1e9,2e9,4\nb,2e7,1e9,3e9,3.5\n"
    table = read_runs(write(tmp_path, text))
    np.testing.assert_array_equal(table.runs.U, [1e9, 1e9])
    np.testing.assert_array_equal(table.runs.D, [2e9, 3e9])
    assert table.runs.groups is None
    assert table.columns["loss"] == "Val-Loss"


def test_columns_are_mapped_with_factors(tmp_path):
    text = "size_m,tok_b,epochs,c4\n10,1,1,4\n20,4,2,3.5\n"
    table = read_runs(write(tmp_path, text), columns=["N=size_m*1e6", "D=tok_b*1e9", "loss=c4"])
    np.testing.assert_array_equal(table.runs.N, [1e7, 2e7])
    np.testing.assert_array_equal(table.runs.U, [1e9, 2e9])


def test_tokens_come_from_compute_and_rows_are_kept_by_value(tmp_path):
    text = "N,C,loss,keep\n1e7,6e16,4,yes\n1e7,6e17,3,no\n"
    table = read_runs(write(tmp_path, text), where=["keep=yes"])
    np.testing.assert_allclose(table.runs.D, [1e9])


def test_it_is_said_how_parameters_are_counted(tmp_path):
    path = write(tmp_path, "N_params,N_no_embed,D,loss\n9e6,1e6,5e8,3\n8e6,2e6,6e8,2\n")
    assert any("counts embeddings" in note for note in read_runs(path).notes)
    total = read_runs(path, counted="total")
    assert (total.counted, total.runs.N[0]) == ("total", 9e6)
    assert not any("counts embeddings" in note for note in total.notes)
    inner = read_runs(path, counted="non-embedding")
    assert (inner.counted, inner.runs.N[0]) == ("non-embedding", 1e6)


def test_units_of_the_loss(tmp_path):
    assert read_runs(write(tmp_path, GOOD)).loss_unit == "nats-per-token"
    bits = write(tmp_path, GOOD.replace("loss", "val_bpb"))
    assert read_runs(bits).loss_unit == "bits-per-byte"


def test_checkpoints_of_one_run_are_a_group(tmp_path):
    text = "run,N,D,loss\na,1e7,1e9,4\na,1e7,2e9,3.8\nb,2e7,1e9,3.9\n"
    assert list(read_runs(write(tmp_path, text)).runs.groups) == ["a", "a", "b"]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (GOOD.replace("3.9", "n/a"), {}, "line 3: column 'loss' must be a number, got 'n/a'"),
        (GOOD.replace("3.9", ""), {}, "must be a number, got ''"),
        (GOOD.replace("3.9", "nan"), {}, "must be a number, got 'nan'"),
        (GOOD.replace("3.9", "-3.9"), {}, "line 3: column 'loss' must be positive"),
        (GOOD.replace("3.9", "0"), {}, "line 3: column 'loss' must be positive"),
        (GOOD.replace("2e7,1e9,3.9", "2e7,3.9"), {}, "line 3: not as many fields"),
        (GOOD.replace("loss", "score"), {}, "--column loss=COLUMN"),
        ("N,D,loss\n", {}, "has no runs"),
        (GOOD, {"columns": ["loss=los"]}, "did you mean 'loss'"),
        (GOOD, {"columns": ["lr=loss"]}, "ROLE=COLUMN"),
        (GOOD, {"columns": ["D=D*x"]}, "factor must be a positive number"),
        (GOOD, {"where": ["kept=1"]}, "no column 'kept'"),
        (GOOD, {"counted": "all"}, "--counted must be one of total, non-embedding"),
        (
            "N,D,loss,tokenizer\n1,2,3,gpt2\n1,2,3,llama\n",
            {},
            "nats per token of 2 tokenizers (gpt2, llama) cannot be compared",
        ),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, text, options, words):
    with pytest.raises(UserError) as caught:
        read_runs(write(tmp_path, text), **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tokenizers_may_differ_in_bits_per_byte(tmp_path):
    text = "N,D,bpb,tokenizer\n1e7,2e9,1.1,gpt2\n1e7,2e9,1.2,llama\n"
    assert read_runs(write(tmp_path, text)).loss_unit == "bits-per-byte"


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        read_runs(tmp_path / "none.csv")


def grid(seed=0, noise=0.005):
    """24 one-epoch runs that follow Chinchilla's law: N, D and loss, (24,) each."""
    N = np.repeat(np.geomspace(2e7, 2e9, 6), 4)
    D = N * np.tile(np.geomspace(5, 200, 4), 6)
    loss = 1.8 + 400 / N**0.34 + 2000 / D**0.37
    return N, D, loss * np.exp(noise * np.random.default_rng(seed).normal(size=24))


def csv(columns):
    names, values = list(columns), zip(*columns.values(), strict=True)
    return "\n".join([",".join(names), *(",".join(map(str, row)) for row in values)]) + "\n"


def notes_of(tmp_path, columns, **options):
    return read_runs(write(tmp_path, csv(columns)), **options).notes


def test_clean_runs_are_not_suspected(tmp_path):
    for seed in range(20):
        N, D, loss = grid(seed, noise=0.01)
        notes = notes_of(tmp_path, {"total_params": N, "D": D, "loss": loss})
        assert [n for n in notes if "unique" not in n] == []


def test_counts_in_billions_are_refused(tmp_path):
    N, D, loss = grid()
    for columns, name in (
        ({"N": N / 1e9, "D": D, "loss": loss}, "N"),
        ({"N": N / 1e6, "D": D, "loss": loss}, "N"),
        ({"N": N, "D": D / 1e9, "loss": loss}, "D"),
    ):
        with pytest.raises(UserError, match=rf"--column {name}={name}\*1e9"):
            read_runs(write(tmp_path, csv(columns)))
    scaled = write(tmp_path, csv({"N": N / 1e9, "D": D, "loss": loss}))
    np.testing.assert_allclose(read_runs(scaled, columns=["N=N*1e9"]).runs.N, N)


def test_perplexities_are_no_nats(tmp_path):
    N, D, loss = grid()
    table = {"N": N, "D": D, "loss": np.exp(loss)}
    with pytest.raises(UserError, match="say --loss-unit perplexity"):
        read_runs(write(tmp_path, csv(table)))
    found = read_runs(write(tmp_path, csv(table)), loss_unit="perplexity")
    np.testing.assert_allclose(found.runs.loss, loss)
    assert found.loss_unit == "nats-per-token"
    # Of good models, which could still be nats.
    low = {**table, "loss": np.exp(loss / loss.max() * 1.2 + 1)}
    assert any("say --loss-unit perplexity" in n for n in notes_of(tmp_path, low))
    with pytest.raises(UserError, match="'val_ppl'"):
        read_runs(
            write(tmp_path, csv({"N": N, "D": D, "val_ppl": low["loss"]})), columns=["loss=val_ppl"]
        )


def test_learning_rates_are_no_runs_of_their_own(tmp_path):
    N, D, loss = grid()
    rates = np.tile([1e-4, 3e-4, 1e-3, 3e-3, 1e-2], 24)
    worse = np.tile([0.08, 0.02, 0, 0.03, 0.12], 24)
    table = {"N": np.repeat(N, 5), "D": np.repeat(D, 5), "lr": rates}
    notes = notes_of(tmp_path, {**table, "loss": np.repeat(loss, 5) * np.exp(worse)})
    (said,) = [n for n in notes if "keep the best run of each" in n]
    assert "24 pairs of N and D have several runs, up to 5 (they differ in lr)" in said
    # Seeds are runs of their own.
    seeds = {**table, "loss": np.repeat(loss, 5) * np.exp(worse / 10)}
    seeds["seed"] = seeds.pop("lr")
    assert not any("keep the best" in n for n in notes_of(tmp_path, seeds))


def test_two_losses_in_one_column_are_refused(tmp_path):
    N, D, loss = grid()
    table = {
        "N": np.tile(N, 2),
        "D": np.tile(D, 2),
        "eval_set": ["books"] * 24 + ["web"] * 24,
        "loss": np.concatenate([loss, loss * 1.25]),
    }
    with pytest.raises(UserError, match="--where eval_set=books"):
        read_runs(write(tmp_path, csv(table)))
    kept = read_runs(write(tmp_path, csv(table)), where=["eval_set=books"])
    assert len(kept.runs) == 24


@pytest.mark.parametrize("places", [(3, 20), (0, 23), (11, 12)])
def test_diverged_runs_are_told(tmp_path, places):
    N, D, loss = grid()
    loss[list(places)] *= 1.5
    (said,) = [n for n in notes_of(tmp_path, {"N": N, "D": D, "loss": loss}) if "diverged" in n]
    assert said.startswith("2 runs look diverged")
    for place in places:
        assert f"line {place + 2} (" in said


def test_two_losses_that_share_no_size_and_length_are_told(tmp_path):
    for seed in range(5):
        N, D, loss = grid(seed, noise=0.01)
        is_web = np.arange(24) % 2 == 1
        table = {"N": N, "D": D, "eval_set": np.where(is_web, "web", "books")}
        notes = notes_of(tmp_path, {**table, "loss": loss * np.where(is_web, 1.25, 1)})
        (said,) = [n for n in notes if "lie" in n]
        assert "Losses of eval_set=web lie 2" in said
        assert "--where eval_set=books" in said
        # Words that shift nothing, and words for what is known, are no reason.
        assert not any("lie" in n for n in notes_of(tmp_path, {**table, "loss": loss}))
        sizes = {**table, "eval_set": [f"size {n:.2g}" for n in N], "loss": loss}
        assert not any("lie" in n for n in notes_of(tmp_path, sizes))
