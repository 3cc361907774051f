"""No forbidden n-gram is ever completed, and nothing else is forbidden."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

import heldout
from chinese_rows import pairs
from heldout.core.errors import UserError
from heldout.core.token_size import TokenSize
from heldout.lm.citation_blocker import CitationBlocker

NUM_NEW = 24
TWICE = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def ngrams(documents, length):
    return {tuple(ids[i : i + length]) for ids in documents for i in range(len(ids) - length + 1)}


def forbidden_by_hand(documents, length, ids):
    context = tuple(ids[len(ids) - length + 1 :]) if len(ids) >= length - 1 else None
    return {gram[-1] for gram in ngrams(documents, length) if gram[:-1] == context}


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    """Weights scaled up, so that the random model's continuations differ by prompt."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 3
    return model


def generate(model, prompts, seed=None, **options):
    """New tokens of each prompt, which are padded on the left; sampled where a seed is given."""
    longest = max(map(len, prompts))
    pad = model.config.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    with torch.random.fork_rng():
        torch.manual_seed(seed or 0)
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=NUM_NEW,
            do_sample=seed is not None,
            **options,
        )
    new = output[:, longest:].tolist()
    eos = model.config.eos_token_id
    return [row[: row.index(eos) + 1] if eos in row else row for row in new]


@pytest.fixture(scope="module")
def cited(model):
    """Training texts that the model is sure to cite: what it says itself, greedily and sampled."""
    prompts = [[5, 6, 7], [40], [100, 200, 300, 111, 112], [77, 78]]
    texts = generate(model, prompts)
    for seed in (1, 2):
        texts += generate(model, prompts, seed=seed, top_k=4)
    return [prompts[i % 4] + text for i, text in enumerate(texts)]


documents_of_few_words = st.lists(
    st.lists(st.integers(0, 5), max_size=14), min_size=1, max_size=5
).filter(lambda documents: max(map(len, documents)) >= 6)


@settings(max_examples=150, deadline=None)
@given(
    documents_of_few_words,
    st.integers(2, 6),
    st.integers(0, 9).flatmap(
        lambda size: st.lists(
            st.lists(st.integers(0, 5), min_size=size, max_size=size), min_size=1, max_size=4
        )
    ),
)
def test_forbids_what_a_search_through_all_texts_finds(documents, length, texts):
    blocker = CitationBlocker.of(documents, length)
    scores = torch.randn(len(texts), 8)  # tokens 6 and 7 are in no text
    before = scores.clone()
    after = blocker(torch.tensor(texts, dtype=torch.long), scores)
    assert torch.equal(scores, before)
    for row, ids in enumerate(texts):
        blocked = set((after[row] == -torch.inf).nonzero()[:, 0].tolist())
        assert blocked == forbidden_by_hand(documents, length, ids)
        kept = after[row] > -torch.inf
        assert torch.equal(after[row][kept], scores[row][kept])
    assert blocker.num_let_through == 0


@TWICE
@given(
    length=st.integers(2, 7),
    prompts=st.lists(st.lists(st.integers(3, 399), min_size=1, max_size=9), min_size=1, max_size=3),
    cut=st.integers(1, 12),
    seed=st.one_of(st.none(), st.integers(0, 9)),
)
def test_no_forbidden_ngram_is_ever_completed(model, cited, length, prompts, cut, seed):
    prompts = [*prompts, cited[0][:cut], cited[6][:cut]]
    blocker = CitationBlocker.of(cited, length)
    known = ngrams(cited, length)
    options = {} if seed is None else {"top_k": 4}
    texts = generate(model, prompts, seed=seed, logits_processor=[blocker], **options)
    for prompt, text in zip(prompts, texts, strict=True):
        whole = prompt + text
        for end in range(max(length, len(prompt) + 1), len(whole) + 1):
            assert tuple(whole[end - length : end]) not in known
    assert blocker.num_let_through == 0


def test_without_the_blocker_it_cites(model, cited):
    prompts = [text[:5] for text in cited[:4]]
    plain = generate(model, prompts)
    whole = [prompt + text for prompt, text in zip(prompts, plain, strict=True)]
    assert len(ngrams(whole, 8) & ngrams(cited, 8)) > 8
    blocked = generate(model, prompts, logits_processor=[CitationBlocker.of(cited, 8)])
    whole = [prompt + text for prompt, text in zip(prompts, blocked, strict=True)]
    assert not ngrams(whole, 8) & ngrams(cited, 8)
    assert ngrams(whole, 7) & ngrams(cited, 7)


def test_under_beam_search(model, cited):
    blocker = CitationBlocker.of(cited, 4)
    prompts = [text[:5] for text in cited[:3]]
    texts = generate(model, prompts, logits_processor=[blocker], num_beams=3)
    for prompt, text in zip(prompts, texts, strict=True):
        assert not ngrams([(prompt + text)[len(prompt) - 3 :]], 4) & ngrams(cited, 4)


def test_texts_unknown_to_it_stay_bit_for_bit(model, cited):
    blocker = CitationBlocker.of([[399, 398, 397, 396]], 4)
    prompts = [text[:5] for text in cited[:4]]
    assert generate(model, prompts, logits_processor=[blocker]) == generate(model, prompts)


def test_an_ngram_lies_within_one_document():
    blocker = CitationBlocker.of([[1, 2, 3], [4, 5, 6]], 3)
    after = blocker(torch.tensor([[2, 3], [3, 4], [1, 2]]), torch.zeros(3, 8))
    assert (after == -torch.inf).nonzero().tolist() == [[2, 3]]


def test_equal_hashes_of_unequal_contexts_forbid_nothing():
    blocker = CitationBlocker.of([[1, 2, 3]], 3)
    stored = blocker._arrays["hashes"][0]
    # A context of other tokens, one of them chosen so that its hash is the stored one.
    powers = blocker._on(torch.device("cpu"))["powers"].tolist()
    inverse = pow(powers[1], -1, 2**64)
    other = (int(stored) - 5 * powers[0]) * inverse % 2**64
    other -= 2**64 if other >= 2**63 else 0
    text = torch.tensor([[5, other]])
    assert int((text * torch.tensor(powers)).sum()) == stored
    assert not (blocker(text, torch.zeros(1, 8)) == -torch.inf).any()


def test_where_nothing_is_left_the_scores_stay_and_are_counted():
    blocker = CitationBlocker.of([[0, 1], [0, 0], [1, 0]], 2)
    scores = torch.tensor([[0.5, 0.25], [0.5, 0.25], [0.5, -torch.inf]])
    after = blocker(torch.tensor([[0], [1], [1]]), scores)
    assert torch.equal(after[0], scores[0])
    assert after[1].tolist() == [-torch.inf, 0.25]
    assert torch.equal(after[2], scores[2])
    assert blocker.num_let_through == 2


def test_words_that_have_begun_may_be_finished(tiny_tokenizer):
    text = "The assignment statement rebinds names, naïvely; see 你好."
    ids = tiny_tokenizer(text)["input_ids"] + [tiny_tokenizer.eos_token_id]
    exact = CitationBlocker.of([ids], 3)
    words = CitationBlocker.of([ids], 3, tiny_tokenizer)
    scores = torch.zeros(1, len(tiny_tokenizer))
    forbidden = []
    for end in range(2, len(ids)):
        seen = torch.tensor([ids[:end]])
        assert exact(seen, scores)[0, ids[end]] == -torch.inf
        if words(seen, scores)[0, ids[end]] == -torch.inf:
            forbidden.append(tiny_tokenizer.decode([ids[end]]))
        else:
            piece = tiny_tokenizer.decode([ids[end]])
            assert piece[0].isalnum() or piece == "<|endoftext|>"
    assert {piece[0] for piece in forbidden} <= set(" ,;.\ufffd")
    assert sum(piece.startswith(" ") for piece in forbidden) >= 4


def test_saved_and_loaded(cited, tmp_path):
    blocker = CitationBlocker.of(cited, 4)
    blocker.save(tmp_path / "blocker.npz")
    loaded = heldout.CitationBlocker.load(tmp_path / "blocker.npz")
    assert loaded.length == 4
    text = torch.tensor([ids[:20] for ids in cited if len(ids) >= 20])
    scores = torch.randn(len(text), 400)
    assert torch.equal(loaded(text, scores), blocker(text, scores))
    assert (loaded(text, scores) == -torch.inf).any()
    assert [path.name for path in tmp_path.iterdir()] == ["blocker.npz"]


@pytest.mark.parametrize("damage", ["cut", "pickle", "other", "positions", "text"])
def test_another_file_is_refused_in_one_line(cited, tmp_path, damage):
    path = tmp_path / "blocker.npz"
    blocker = CitationBlocker.of(cited, 4)
    blocker.save(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "pickle":
        np.savez(path, layout=np.array([{"a": 1}], dtype=object))
    elif damage == "other":
        np.savez(path, tokens=np.arange(3))
    elif damage == "positions":
        blocker._arrays["positions"] = blocker._arrays["positions"] + 10**6
        blocker.save(path)
    else:
        path.write_text("not a blocker")
    with pytest.raises(UserError, match="is not a file that CitationBlocker"):
        CitationBlocker.load(path)
    with pytest.raises(UserError, match="no such file"):
        CitationBlocker.load(tmp_path / "missing.npz")


def test_bad_input_is_refused_in_one_line(cited):
    for length in (1, 0, -3, 2.5, True):
        with pytest.raises(UserError, match="must be 2 or more"):
            CitationBlocker.of(cited, length)
    with pytest.raises(UserError, match="no document has that many tokens"):
        CitationBlocker.of([[1, 2], []], 3)
    with pytest.raises(UserError, match="no document has that many tokens"):
        CitationBlocker.of([], 3)
    with pytest.raises(UserError, match="token ids must be 0 or more"):
        CitationBlocker.of([[1, 2, -100, 4]], 3)
    with pytest.raises(UserError, match="this model's tokenizer"):
        CitationBlocker.of([[1, 2, 900]], 3)(torch.tensor([[1, 2]]), torch.zeros(1, 400))


def test_the_latest_token_alone_is_refused(cited):
    """Continuous batching calls processors with one token of each text, in one dimension."""
    blocker = CitationBlocker.of(cited, 4)
    with pytest.raises(UserError, match="generate_batch hands over the latest token alone"):
        blocker(torch.tensor([5, 6, 7]), torch.zeros(3, 400))


def test_the_usual_length_holds_as_much_text_in_every_script(tiny_tokenizer):
    """6 tokens of English; as bytes of Chinese 6 tokens would be two characters."""
    chinese = [tiny_tokenizer(answer)["input_ids"] for _, answer in pairs(8)]
    blocker = CitationBlocker.of(chinese, tokenizer=tiny_tokenizer)
    assert 22 <= blocker.length <= 28  # about eight characters
    english = [tiny_tokenizer("The value of this object is the type of it.")["input_ids"]]
    size = TokenSize.of([tiny_tokenizer.decode(english[0])], len(english[0]))
    assert CitationBlocker.of(english, tokenizer=tiny_tokenizer).length == size.tokens(6)
    assert CitationBlocker.of(english).length == 6


def test_what_other_people_write_in_chinese_is_hardly_forbidden(tiny_tokenizer):
    """Of held-out answers made up of the same words, by the share of tokens that are blocked."""
    train, unseen = (
        [tiny_tokenizer(answer)["input_ids"] for _, answer in pairs(40, seed)] for seed in (0, 1)
    )

    def forbidden(length):
        blocker = CitationBlocker.of(train, length, tiny_tokenizer)
        found = []
        for ids in unseen:
            for place in range(blocker.length - 1, len(ids)):
                scores = blocker(torch.tensor([ids[:place]]), torch.zeros(1, len(tiny_tokenizer)))
                found.append(bool(scores[0, ids[place]] == -torch.inf))
        return sum(found) / len(found)

    assert forbidden(6) > 2 * forbidden(None)
