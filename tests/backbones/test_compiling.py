"""Each call of a guided evaluation is one graph, and compiled blocks compute the same."""

import pytest
import torch
from hub_box import sd_unet, sdxl_unet, seeded, vae

from align.__main__ import main
from align.backbones.base import Conditioning
from align.backbones.compiling import compile_blocks
from align.backbones.guider import Guider
from align.backbones.modules import Modules
from align.backbones.unet import UNetBackbone
from align.processes.ddim import ddim
from align.rewards.registry import load
from align.sampling.views import Alterations, ViewDraws, altered, views

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}
CPU = torch.device("cpu")
STEP = ddim(SCHEDULE, 4, 1.0).steps[1]


@pytest.fixture
def graphs():
    """Compiles into what is there already, and lists the graphs."""
    torch._dynamo.reset()
    found = []

    def backend(graph, _):
        found.append(graph)
        return graph

    found_and_backend = found, backend
    yield found_and_backend
    torch._dynamo.reset()


SMALL = {
    "sd15": {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    "sdxl": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (1, 2),
    },
}
"""A block of each kind: each more would only be traced once more."""


def backbone(name):
    make, seed = (sd_unet, 1) if name == "sd15" else (sdxl_unet, 2)
    unet = make(seed, block_out_channels=(8, 8), **SMALL[name])
    modules = Modules(
        unet.requires_grad_(False), vae(3, 0.2).requires_grad_(False), (), name == "sdxl", SCHEDULE, CPU
    )
    return UNetBackbone(modules, 64, 64)


def conditioning(name):
    states = seeded(5, lambda: torch.nn.ParameterList([torch.randn(1, 77, 16) for _ in range(2)]))
    own, other = (one.detach() for one in states)
    if name == "sd15":
        return Conditioning(own, other)
    pooled = torch.ones(1, 8)
    return Conditioning(own, other, pooled, 2 * pooled, torch.full((1, 6), 64.0))


BOTH = ["sd15", pytest.param("sdxl", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("name", "attention"), [("sd15", None), ("sdxl", "both")])
@pytest.mark.slow  # the same network, in whole; its blocks are compiled below
def test_a_prediction_is_one_graph_with_the_probe_and_without(name, attention, graphs):
    found, backend = graphs
    ours, texts = backbone(name), conditioning(name)
    z = torch.randn(1, *ours.latent_shape(), generator=torch.Generator().manual_seed(0)).requires_grad_()

    guider = Guider(5.0)

    def predict(z):
        made = ours.predict(z, STEP, texts, guider, attention=attention)
        return made.x0, made.attention

    eager, (x0, maps) = predict(z), torch.compile(predict, fullgraph=True, backend=backend)(z)
    assert len(found) == 1
    torch.testing.assert_close(x0, eager[0])
    assert (maps is None) == (attention is None)
    if maps is not None:
        torch.testing.assert_close(maps, eager[1])


@pytest.mark.slow
def test_decoding_is_one_graph(graphs):
    found, backend = graphs
    ours = backbone("sd15")
    z = torch.randn(1, 4, 8, 8).requires_grad_()
    torch.testing.assert_close(torch.compile(ours.decode, fullgraph=True, backend=backend)(z), ours.decode(z))
    assert len(found) == 1


SLOW = [
    pytest.param(f"shapes_{name}", marks=pytest.mark.slow)
    for name in ("pick", "hps", "imagereward", "aesthetic")
]


@pytest.mark.parametrize("name", ["shapes_spm", *SLOW])
def test_scoring_known_prompts_is_one_graph(name, graphs):
    found, backend = graphs
    reward, prompts = load(name), ["a red circle", "a blue star"]
    pictures = torch.rand(2, 3, 96, 80, generator=torch.Generator().manual_seed(0)).requires_grad_()
    step = torch.tensor([300, 700])
    eager = reward.score(pictures, prompts, step)
    scored = torch.compile(lambda x: reward.score(x, prompts, step), fullgraph=True, backend=backend)(
        pictures
    )
    assert len(found) == 1
    torch.testing.assert_close(scored, eager)


def test_the_arithmetic_of_views_is_one_graph(graphs):
    found, backend = graphs
    generator = torch.Generator().manual_seed(0)
    draws = ViewDraws.of(lambda _, n: torch.rand(2, n, generator=generator), 3)
    pictures = torch.rand(2, 3, 24, 40, generator=generator).requires_grad_()
    by = Alterations.of(draws, pictures)
    made = torch.compile(altered, fullgraph=True, backend=backend)(pictures, by)
    assert len(found) == 1
    torch.testing.assert_close(made, views(pictures, draws))


@pytest.mark.parametrize("name", BOTH)
def test_compiled_blocks_predict_and_decode_the_same(name, graphs):
    found, backend = graphs
    ours, texts = backbone(name), conditioning(name)
    z = torch.randn(1, *ours.latent_shape(), generator=torch.Generator().manual_seed(0)).requires_grad_()

    def evaluated():
        made = ours.predict(z, STEP, texts, Guider(5.0), attention="both")
        (gradient,) = torch.autograd.grad(made.attention.square().sum() + ours.decode(made.x0).sum(), z)
        return made.x0, made.attention, gradient

    before = evaluated()
    compile_blocks(ours.unet, ours.vae.decoder, backend=backend)
    for one, other in zip(evaluated(), before, strict=True):
        torch.testing.assert_close(one, other)
    compiled = len(found)
    assert compiled > 0
    evaluated()
    assert len(found) == compiled  # equal calls are compiled once


def test_without_a_compiler_nothing_starts(monkeypatch, capsys):
    monkeypatch.setattr("align.runner.prepare.which", lambda name: None)
    assert main(["method=none", "metrics=none", "backbone.compile=true", "run.device=cpu"]) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert "backbone.compile=true needs a C++ compiler" in said
