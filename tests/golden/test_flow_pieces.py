"""What DyMO reads of a flow transformer, against definitions by autograd through diffusers' own modules: maps, pictures,
gradients of a reward and of the attention loss.
"""

import json

import pytest
import torch
from transformers import T5Tokenizer

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.backbones.text import words
from align.semantics.attention_loss import pair_weights, semantic_loss
from align.semantics.graph import Entity, Graph
from align.semantics.tokens import TokenPairs, token_pairs

from .flow import Trace, at, far, pipeline, pytest_cases


def pytest_generate_tests(metafunc):
    if "trace" in metafunc.fixturenames:
        pytest_cases(metafunc, "pieces_")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("flow")


@pytest.fixture(scope="module")
def trace(request, golden, folder):
    return Trace(golden, request.param, folder)


def predicted(trace, z, attention=None, **options):
    backbone = trace.backbone_with(**options)
    prompt = trace.cond()
    negative = trace.cond("negative_") if "cond/negative_pooled" in trace.tensors else prompt
    given = Conditioning(prompt.states, negative.states, prompt.pooled, negative.pooled)
    scale = trace.settings["guidance_scale"]
    guider = Guider(scale if trace.kind == "sd3" else 1.0, embedded=scale)
    step = at(trace.settings["sigma"])
    return backbone, backbone.predict(z, step, given, guider, attention, correction=False)


@torch.no_grad()
def test_predictions_and_picture(trace):
    backbone, found = predicted(trace, trace.tensors["latents"])
    assert far(found.eps - found.x0, trace.tensors["velocity"]) < 1e-4
    assert far(found.x0, trace.tensors["x0"]) < 1e-4
    assert far(found.eps, trace.tensors["eps"]) < 1e-4
    recorded = trace.tensors["picture"]
    assert (
        min(far(backbone.decode(found.x0), recorded), far(2 * backbone.decode(found.x0) - 1, recorded)) < 1e-4
    )


@torch.no_grad()
def test_the_maps_of_every_block(trace):
    recorded = trace.tensors["maps"]
    for block, halves in enumerate(recorded):
        for attention, wanted in (("prompt", halves[-1]), ("both", halves.mean(dim=0))):
            _, found = predicted(
                trace,
                trace.tensors["latents"],
                attention,
                attention_blocks=[block],
                attention_maps="joint",
            )
            cells = trace.settings["height"] // 16, trace.settings["width"] // 16
            assert found.attention.shape[1:3] == cells
            assert far(found.attention[0].flatten(0, 1), wanted) < 1e-5


def reward(backbone, x0):
    picture = backbone.decode(x0)
    return picture[:, 0].mean() - picture[:, 2].mean()


def test_the_gradient_of_a_reward(trace):
    z = trace.tensors["latents"].clone().requires_grad_()
    backbone, found = predicted(trace, z)
    value = reward(backbone, found.x0)
    assert value.item() == pytest.approx(trace.facts["reward"], abs=1e-5)
    (gradient,) = torch.autograd.grad(value, z, retain_graph=True)
    assert far(gradient, trace.tensors["grad_reward"]) < 1e-3
    (gradient,) = torch.autograd.grad(value, found.x0)
    assert far(gradient, trace.tensors["grad_reward_x0"]) < 1e-3


@pytest.mark.parametrize(
    ("name", "attention", "maps"),
    [("both", "both", "joint"), ("prompt", "prompt", "joint"), ("share", "prompt", "joint_share")],
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_of_the_attention_loss(trace, name, attention, maps, checkpointing):
    """Recomputed blocks report the maps that they reported at first."""
    z = trace.tensors["latents"].clone().requires_grad_()
    blocks = range(len(trace.tensors["maps"]))
    _, found = predicted(
        trace, z, attention, attention_blocks=blocks, attention_maps=maps, checkpointing=checkpointing
    )
    pairs = TokenPairs(
        *(tuple((one, two) for one, two in trace.facts[kind]) for kind in ("positive", "negative"))
    )
    loss = semantic_loss(found.attention, pair_weights([pairs], found.attention.shape[-1]))
    assert loss.item() == pytest.approx(trace.facts[f"loss_attention_{name}"], abs=1e-6)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    assert far(gradient, trace.tensors[f"grad_attention_{name}"]) < 1e-3


def test_offsets_of_t5s_pieces(golden, folder):
    if golden is None:
        pytest.skip("no recorded runs: --golden DIR")
    tokenizer = T5Tokenizer.from_pretrained(pipeline(golden, "sd3", folder) / "tokenizer_3")
    for one in json.loads((golden / "flow/functions/t5_offsets.json").read_text()):
        found = words(tokenizer, one["text"], len(one["ids"]) + 3)
        assert [list(span) for span in found.offsets] == [*one["offsets"], *[[0, 0]] * 3]
        assert list(found.pieces) == one["pieces"]
        if len(one["ids"]) > 1:
            cut = words(tokenizer, one["text"], len(one["ids"]) - 1)
            assert cut.cut
            assert cut.offsets[-1] == (0, 0)


def span(text, word):
    start = text.index(word)
    return start, start + len(word)


def test_words_have_the_recorded_columns(trace):
    """In the rows of each encoder, and pairs inside each alone: those that were recorded, less those across."""
    prompt = trace.settings["prompt"]
    read = trace.backbone.encode(prompt, "")
    for word, columns in trace.facts["words"].items():
        first, last = span(prompt, word)
        assert [k for k, (start, end) in enumerate(read.offsets) if first <= start < end <= last] == columns
    nouns = {noun: [] for pair in trace.settings["negative"] for noun in pair}
    for noun, attribute in trace.settings["positive"]:
        nouns[noun].append(span(prompt, attribute))
    graph = Graph(tuple(Entity(span(prompt, noun), tuple(found)) for noun, found in nouns.items()))
    found = token_pairs(graph, read.offsets, read.limit, read.parts)
    parts = [range(*part) for part in read.parts]
    for ours, kind in ((found.positive, "positive"), (found.negative, "negative")):
        within = {
            tuple(pair)
            for pair in trace.facts[kind]
            if any(pair[0] in part and pair[1] in part for part in parts)
        }
        assert set(ours) == within
