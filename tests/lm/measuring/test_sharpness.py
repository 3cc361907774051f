"""What is read off one pass equals the plain formulas in double precision."""

import numpy as np
import pytest
import torch

from heldout.core.errors import TrainingDiverged
from heldout.lm.load import load_model
from heldout.lm.measuring.sharpness import Sharpness, sharpness
from heldout.lm.tokenize import IGNORED, Window


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    return load_model(str(tiny_model_dir), device="cpu")


@pytest.fixture(scope="module")
def windows(loaded, english_text):
    ids = loaded.tokenizer(english_text[:3000], verbose=False).input_ids
    lengths = (20, 12, 17, 20, 9)  # prompt of 5, the rest scored
    cut = [ids[30 * n : 30 * n + length] for n, length in enumerate(lengths)]
    return [Window(piece, [IGNORED] * 5 + piece[5:]) for piece in cut]


def slow_twin(model, window):
    """Per scored token: loss, entropy, largest probability, rank; from float64 probabilities."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([window.input_ids])).logits[0].double()
    rows = []
    for place in range(5, len(window.input_ids)):
        p = torch.exp(logits[place - 1] - torch.logsumexp(logits[place - 1], 0))
        true = window.input_ids[place]
        rows.append(
            [
                -torch.log(p[true]).item(),
                -(p * torch.log(p)).sum().item(),
                p.max().item(),
                sum(other > p[true] for other in p).item(),
            ]
        )
    return rows


def test_equals_the_formulas(loaded, windows):
    found = sharpness(loaded.model, windows, loaded.tokenizer.pad_token_id, batch_size=2)
    expected = np.array([row for window in windows for row in slow_twin(loaded.model, window)])
    for number, values in enumerate((found.nats_N, found.entropy_N, found.top_N)):
        assert values == pytest.approx(expected[:, number], rel=1e-4)
    # Float32 may put tokens of equal probability in another order.
    assert (np.abs(found.rank_N - expected[:, 3]) <= 1).all()
    assert found.nats_per_token == pytest.approx(expected[:, 0].mean(), rel=1e-5)


def test_tokens_know_their_window_and_place(loaded, windows):
    found = sharpness(loaded.model, windows, loaded.tokenizer.pad_token_id, batch_size=2)
    lengths = [len(window.input_ids) - 5 for window in windows]
    assert found.window_N.tolist() == np.repeat(range(5), lengths).tolist()
    assert found.position_N.tolist() == [place for length in lengths for place in range(length)]
    assert found.per_window(found.nats_N) == pytest.approx(
        [found.nats_N[found.window_N == number].sum() for number in range(5)]
    )


def test_saved_and_loaded(loaded, windows, tmp_path):
    found = sharpness(loaded.model, windows, loaded.tokenizer.pad_token_id, batch_size=8)
    found.save(tmp_path / "base.npz")
    again = Sharpness.load(tmp_path / "base.npz")
    assert all(np.array_equal(vars(again)[name], values) for name, values in vars(found).items())
    assert [path.name for path in tmp_path.iterdir()] == ["base.npz"]


def test_a_broken_model_is_told(tiny_model_dir, windows):
    broken = load_model(str(tiny_model_dir), device="cpu")
    broken.model.get_output_embeddings().weight.data.fill_(torch.nan)
    with pytest.raises(TrainingDiverged, match="not a finite number"):
        sharpness(broken.model, windows, broken.tokenizer.pad_token_id, batch_size=2)
