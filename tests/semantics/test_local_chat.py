import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from align.semantics.graph import RefusedError
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


def test_a_model_of_any_kind_computes_as_it_can(tmp_path, monkeypatch):
    monkeypatch.setattr("align.semantics.local_chat.MOST_TOKENS", 1)
    save(tmp_path, TEMPLATE)
    chat, seen = LocalChat(tmp_path, CPU), []
    chat.model.register_forward_hook(lambda *_: seen.append(torch.get_deterministic_debug_mode()))
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        chat([{"role": "user", "content": "a cat"}])
        assert torch.get_deterministic_debug_mode() == 2
    finally:
        torch.set_deterministic_debug_mode(before)
    assert seen == [1]


def test_what_is_no_chat_model(tmp_path):
    with pytest.raises(RefusedError, match="holds no language model"):
        LocalChat(tmp_path, CPU)
    save(tmp_path, None)
    with pytest.raises(RefusedError, match="no chat template"):
        LocalChat(tmp_path, CPU)
    with pytest.raises(RefusedError, match="is not there"):
        LocalChat(tmp_path / "none", CPU)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_never_run(name, tmp_path):
    save(tmp_path, TEMPLATE)
    marker = tmp_path / "it_ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    content = json.loads((tmp_path / name).read_text())
    names = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    content["auto_map"] = {one: "evil.Evil" for one in names} | {"AutoTokenizer": ["evil.Evil", None]}
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(RefusedError, match=f"its own code to be run .auto_map in {name}.") as caught:
        LocalChat(tmp_path, CPU)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_weights_are_safetensors_and_whole(tmp_path):
    save(tmp_path, TEMPLATE)
    weights = tmp_path / "model.safetensors"
    torch.save({}, tmp_path / "pytorch_model.bin")
    kept = weights.read_bytes()
    weights.unlink()
    with pytest.raises(RefusedError, match="holds no language model"):
        LocalChat(tmp_path, CPU)
    weights.write_bytes(kept[:100])
    with pytest.raises(RefusedError, match="holds no language model"):
        LocalChat(tmp_path, CPU)
    weights.write_bytes(kept)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(RefusedError, match="is an adapter"):
        LocalChat(tmp_path, CPU)
