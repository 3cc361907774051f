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
    path = write(tmp_path, "N_params,N_no_embed,D,loss\n9,1,5,3\n8,2,6,2\n")
    assert any("counts embeddings" in note for note in read_runs(path).notes)
    total = read_runs(path, counted="total")
    assert (total.counted, total.runs.N[0]) == ("total", 9)
    assert not any("counts embeddings" in note for note in total.notes)
    inner = read_runs(path, counted="non-embedding")
    assert (inner.counted, inner.runs.N[0]) == ("non-embedding", 1)


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
        (GOOD, {"counted": "all"}, "--parameters must be one of total, non-embedding"),
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
    text = "N,D,bpb,tokenizer\n1,2,1.1,gpt2\n1,2,1.2,llama\n"
    assert read_runs(write(tmp_path, text)).loss_unit == "bits-per-byte"


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        read_runs(tmp_path / "none.csv")
