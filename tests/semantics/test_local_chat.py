import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from align.semantics.errors import RefusedError
from align.semantics.local_chat import LocalChat

CPU = torch.device("cpu")
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


def save(folder, template):
    """A random language model over bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*alphabet, "<end>"])}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    size = GPT2Config(vocab_size=len(vocabulary), n_positions=64, n_embd=8, n_layer=1, n_head=1)
    GPT2LMHeadModel(size).save_pretrained(folder)


def test_an_answer_is_new_text_and_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr("align.semantics.local_chat.MOST_TOKENS", 5)
    save(tmp_path, TEMPLATE)
    chat = LocalChat(tmp_path, CPU)
    answer = chat([{"role": "user", "content": "a cat"}])
    assert "a cat" not in answer
    assert answer == chat([{"role": "user", "content": "a cat"}])


def test_what_is_no_chat_model(tmp_path):
    with pytest.raises(RefusedError, match="holds no chat model"):
        LocalChat(tmp_path, CPU)
    save(tmp_path, None)
    with pytest.raises(RefusedError, match="no chat template"):
        LocalChat(tmp_path, CPU)
    with pytest.raises(RefusedError, match="is not there"):
        LocalChat(tmp_path / "none", CPU)
