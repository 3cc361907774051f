"""Tiny models on one thread and no network, for every test."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# PEFT 0.21 calls names that transformers 5.23 has renamed: theirs to mend.
DEPRECATED_IN_PEFT = ("is_gradient_checkpointing", "gradient_checkpointing_enable")


def pytest_configure(config):
    for name in DEPRECATED_IN_PEFT:
        config.addinivalue_line(
            "filterwarnings", f"ignore:`{name}` is deprecated and will be removed:FutureWarning"
        )


@pytest.fixture(scope="session", autouse=True)
def sentences_as_written():
    """Tests read refusals as the source has them; what the library makes of them has its test."""
    from heldout.core.spelling import in_flags

    with in_flags():
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Two busy torch processes with two threads each ran up to nine times slower."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def english_text() -> str:
    """Paragraphs of real prose with a blank line between them, 800 KB; see ``english.py``."""
    from english import articles

    return "\n\n".join(articles())


TEXT_IN = {
    "simplified Chinese": "清晨的集市上，卖豆腐的老人总是第一个到。他点上一盏小灯……然后等客人来。",
    "traditional Chinese": "清晨的市集上，賣豆腐的老人總是第一個到。他點上一盞小燈……然後等客人來。",
    "Japanese": "朝の市場では、豆腐屋のおじいさんがいつも一番に来て、小さな灯りをつけます。",
    "Korean": "이른 아침 시장에는 두부 장수가 먼저 옵니다. 등불을 켜고 손님을 기다립니다.",
    "Thai": "เช้าตรู่ที่ตลาด ชายชราขายเต้าหู้มาถึงก่อนใครเสมอ แล้วจุดตะเกียงดวงเล็กๆ",
    "Hindi": "सुबह के बाज़ार में टोफू बेचने वाला बूढ़ा सबसे पहले आता है और दीया जलाता है।",
    "Arabic": "في سوق الصباح يصل بائعُ الجبن العجوز دائمًا قبل الجميع ويشعل مصباحًا صغيرًا.",
    "English": "At the market the old man who sells tofu is always the first to light a lamp.",
}


@pytest.fixture(params=TEXT_IN)
def text_in_a_script(request) -> str:
    """The same few sentences in one of eight scripts."""
    return TEXT_IN[request.param]


@pytest.fixture(scope="session")
def tiny_tokenizer(english_text):
    """Byte-level BPE of 400 tokens with a ChatML template and no start-of-text token.

    Shared by the session: copy it before changing it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([english_text[:100_000]], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def random_llama(tmp_path_factory):
    """Saves a random Llama of 2 layers and width 32 with a tokenizer; returns the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def saved(tokenizer, name):
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = LlamaForCausalLM(config)
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return saved


@pytest.fixture(scope="session")
def tiny_model_dir(tiny_tokenizer, random_llama):
    """A random Llama of 2 layers and width 32, saved with its tokenizer as a HF folder."""
    return random_llama(tiny_tokenizer, "tiny_llama")
