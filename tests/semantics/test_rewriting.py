"""Prompts written anew: by a chat model or one that was trained for it, once, and then from disk."""

import pytest
import torch
from transformers import GPT2LMHeadModel

from align.semantics.graph import GraphError, RefusedError
from align.semantics.local_rewriter import LocalRewriter
from align.semantics.rewriting import Rewrites, by_chat, messages, read_rewrite

from .test_local_chat import CPU, save


class Chat:
    """Gives prepared answers, or raises them."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def __call__(self, chat):
        self.asked.append(list(chat))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def rewrites(folder, *answers, retries=2):
    chat = Chat(*answers)
    return Rewrites(by_chat(chat, retries, wait=0), {"model": "m"}, folder), chat


def test_a_chat_model_is_asked_once_for_each_prompt(tmp_path):
    rewrite, chat = rewrites(tmp_path, ' "a red cat, soft light"\n', "a dog, at dusk")
    assert [rewrite("a red cat"), rewrite("a dog"), rewrite("a red cat")] == [
        "a red cat, soft light",
        "a dog, at dusk",
        "a red cat, soft light",
    ]
    assert chat.asked == [messages("a red cat"), messages("a dog")]
    later, silent = rewrites(tmp_path)
    assert later("a dog") == "a dog, at dusk"
    assert not silent.asked


def test_another_model_is_another_answer(tmp_path):
    rewrite, _ = rewrites(tmp_path)
    other = Rewrites(rewrite.write, {"model": "n"}, tmp_path)
    assert rewrite.place("a cat") != other.place("a cat")


def test_what_was_kept_and_cannot_be_read_is_asked_for_again(tmp_path):
    rewrite, _ = rewrites(tmp_path, "a cat, in oil", "a cat, in oil")
    rewrite("a cat")
    for damage in ("{", "[]", '{"written": ""}', '{"rewritten": ""}'):
        rewrite, _ = rewrites(tmp_path, "a cat, in oil")
        rewrite.place("a cat").write_text(damage)
        assert rewrite("a cat") == "a cat, in oil"


def test_after_an_answer_that_is_no_prompt_it_is_asked_again_and_told_why(tmp_path):
    rewrite, chat = rewrites(tmp_path, "two\nlines", GraphError("busy"), "a cat, in oil")
    assert rewrite("a cat") == "a cat, in oil"
    assert "not one line" in chat.asked[1][-1]["content"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["", "", ""], "'a cat' cannot be rewritten: 3 tries: the answer is empty"),
        ([GraphError("the endpoint is down")] * 3, "the endpoint is down"),
    ],
)
def test_no_usable_answer_is_one_line(answers, message, tmp_path):
    rewrite, _ = rewrites(tmp_path, *answers)
    with pytest.raises(GraphError, match=message):
        rewrite("a cat")
    assert not list(tmp_path.iterdir())


def test_who_cannot_be_asked_is_not_asked_again(tmp_path):
    rewrite, chat = rewrites(tmp_path, RefusedError("check the key"))
    with pytest.raises(RefusedError, match="check the key"):
        rewrite("a cat")
    assert len(chat.asked) == 1


@pytest.mark.parametrize(
    ("answer", "prompt"),
    [
        (" a cat ", "a cat"),
        ("'a cat'", "a cat"),
        ("\u201ca cat\u201d", "a cat"),
        ('a "cat"', 'a "cat"'),
        ('"', '"'),
    ],
)
def test_quotes_around_an_answer_are_not_its_words(answer, prompt):
    assert read_rewrite(answer) == prompt


def test_a_trained_model_goes_on_from_the_prompt_as_published(tmp_path, monkeypatch):
    save(tmp_path, None)
    seen, generate = [], GPT2LMHeadModel.generate

    def spy(model, **options):
        seen.append(options)
        return generate(model, **options)

    monkeypatch.setattr(GPT2LMHeadModel, "generate", spy)
    write = LocalRewriter(tmp_path, tmp_path, CPU, tokens=5)
    written = write(" a cat ")
    assert written == write("a cat")
    assert "\n" not in written
    read = write.tokenizer.decode(seen[0]["input_ids"][0])
    assert read == "a cat Rephrase:"
    wanted = {"num_beams": 8, "max_new_tokens": 5, "length_penalty": -1.0, "do_sample": False}
    assert {name: seen[0][name] for name in wanted} == wanted


def test_weights_in_a_pickle_are_read_as_plain_tensors(tmp_path):
    save(tmp_path, None)
    write = LocalRewriter(tmp_path, tmp_path, CPU, tokens=5)
    state = {name: value.clone() for name, value in write.model.state_dict().items()}
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    again = LocalRewriter(tmp_path, tmp_path, CPU, tokens=5)
    assert all(torch.equal(value, again.model.state_dict()[name]) for name, value in state.items())
    for damage in ({"code": print}, dict(list(state.items())[3:])):
        torch.save(damage, tmp_path / "pytorch_model.bin")
        with pytest.raises(RefusedError, match=r"method\.prompt_rewrite\.model=.* holds no language model"):
            LocalRewriter(tmp_path, tmp_path, CPU)
