"""Each kind of transformer runs as diffusers' pipeline of its class does: its prompts, levels, steps, guidance and pictures."""

from dataclasses import dataclass, field

import pytest
import tiny_flow
import torch
from fakes import SCHEDULE

from align.backbones.base import Conditioning
from align.backbones.families.flux import packed
from align.backbones.guider import Guider
from align.backbones.registry import load
from align.checkpoints.layout import FORMS
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.runner import build
from align.sampling.batching import Calls
from align.sampling.sampler import Request, keyed

CPU = torch.device("cpu")
PROMPT = "a red cat, and a (blue) dog"
LONG = "a red cat and a blue dog in a green boat; " * 4
STEPS = 3
LIMIT = 2e-5
"""Of pictures from 0 to 1: what rounding comes to at most."""


@dataclass(frozen=True)
class Kind:
    """A preset and a tiny pipeline of its class.

    Attributes:
        schedule: of its scheduler.
        call: what the pipeline's call is told beside what all are.
        scale: how it says our guidance scale; ``None`` where there is none.
        negative: how it says a negative prompt.
        latents: how it takes the initial ones.
    """

    preset: str
    tiny: str
    schedule: dict = field(default_factory=dict)
    call: dict = field(default_factory=dict)
    scale: object = lambda scale: {"guidance_scale": scale}
    negative: object = lambda pipe, negative: {"negative_prompt": negative}
    length: int = 64
    latents: object = lambda z: z


def klein_negative(pipe, negative):
    states, _ = pipe.encode_prompt(negative, max_sequence_length=64)
    return {"negative_prompt_embeds": states}


DYNAMIC = {"use_dynamic_shifting": True}
QWEN = {**DYNAMIC, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02}
KINDS = [
    Kind("z_image", "z_image", {"shift": 3.0}, scale=lambda scale: {"guidance_scale": scale - 1}),
    Kind("z_image_turbo", "z_image", DYNAMIC, {"guidance_scale": 0.0}, None),
    Kind(
        "qwen_image",
        "qwen_image",
        QWEN,
        scale=lambda scale: {"true_cfg_scale": scale},
        length=256,
        latents=packed,
    ),
    Kind("flux2_klein_base", "flux2_klein", DYNAMIC, negative=klein_negative),
    Kind("flux2_klein", "flux2_klein", {**DYNAMIC, "distilled": True}, scale=None),
    Kind("sana", "sana", {"shift": 3.0}, {"use_resolution_binning": False}),
    Kind(
        "pixart_sigma",
        "pixart",
        SCHEDULE,
        {"use_resolution_binning": False, "clean_caption": False},
    ),
]
CASES = {
    "square": (64, 64, PROMPT, ""),
    "wide": (32, 64, PROMPT, ""),
    "tall, with a negative prompt": (96, 64, PROMPT, "grey, blurred"),
    "a long prompt": (64, 64, LONG, "grey"),
}


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.preset)
def made(request, tmp_path_factory):
    kind, folder = request.param, tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    pipe = getattr(tiny_flow, kind.tiny)(**kind.schedule)
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return kind, pipe, folder


RULE = ("reward=shapes_pick", "method.guidance.rule=constant")


def composed(kind, folder, height, width, *options):
    """The preset, on the tiny weights."""
    words = [
        f"backbone={kind.preset}",
        f"backbone.weights={folder}",
        f"backbone.height={height}",
        f"backbone.width={width}",
        f"backbone.max_sequence_length={kind.length}",
        f"sampler.steps={STEPS}",
        "sampler.eta=0",
        "backbone.dtype=float32",
        "method=none",
        *options,
    ]
    return jobs_of(parse(words))[0].config


@pytest.mark.parametrize("case", CASES)
def test_plain_sampling_is_the_pipelines_own_call(made, case):
    kind, pipe, folder = made
    height, width, prompt, negative = CASES[case]
    if kind.scale is None:
        negative = ""
    config = composed(kind, folder, height, width)
    backbone = load(build.recipe(config.backbone), CPU, height, width, max_sequence_length=kind.length)
    request = Request(prompt, negative, seed=3)
    z = keyed(request, 0).normal("initial", 0, 0, backbone.latent_shape())[None]
    call = {
        "prompt": prompt,
        "height": height,
        "width": width,
        "num_inference_steps": STEPS,
        "max_sequence_length": kind.length,
        "latents": kind.latents(z),
        "output_type": "pt",
        **kind.call,
    }
    if kind.scale is not None:
        call |= kind.scale(config.sampler.guidance_scale) | kind.negative(pipe, negative)
    theirs = pipe(**call).images
    (ours,) = build.assemble(config, backbone, None, build.pairs_of(config), Calls(1), CPU).sample([request])
    assert ours.error is None
    torch.testing.assert_close(ours.picture, theirs[0], rtol=0, atol=LIMIT)


def test_both_texts_count(made):
    """So that pictures could not be equal without them."""
    kind, _, folder = made
    config = composed(kind, folder, 64, 64)
    backbone = load(build.recipe(config.backbone), CPU, 64, 64, max_sequence_length=kind.length)
    sampler = build.assemble(config, backbone, None, build.pairs_of(config), Calls(1), CPU)
    texts = [(PROMPT, ""), ("a boat", ""), (PROMPT, "grey, blurred")][: 2 if kind.scale is None else 3]
    requests = [Request(prompt, negative, noise_key="") for prompt, negative in texts]
    first, *others = (outcome.picture for outcome in sampler.sample(requests))
    for other in others:
        assert float((first - other).abs().max()) > 50 * LIMIT


def test_words_are_found_in_the_text_within_its_template(made):
    kind, _, folder = made
    backbone = load(build.recipe(composed(kind, folder, 32, 32).backbone), CPU, 32, 32)
    read = backbone.encode(PROMPT, "")
    assert len(read.offsets) == len(read.prompt)
    spans = {PROMPT[first:last] for first, last in read.offsets}
    assert "red" in spans or set("red") <= spans  # SANA's and PixArt's tiny vocabularies have letters alone
    assert not any(span.startswith(" ") for span in spans)
    assert not read.truncated
    assert backbone.encode(LONG * 9, "").truncated


def test_maps_are_read_where_the_layout_says_so(made):
    kind, _, folder = made
    config = composed(kind, folder, 64, 96)
    backbone = load(build.recipe(config.backbone), CPU, 64, 96, max_sequence_length=kind.length)
    assert (backbone.family.recorder is not None) == FORMS[config.backbone.layout].maps
    if not FORMS[config.backbone.layout].maps:
        with pytest.raises(ConfigError, match=r"method.objective.semantic=.* reads attention maps"):
            composed(kind, folder, 64, 96, "method=dymo", *RULE)
        return
    given = Conditioning.of([backbone.encode(PROMPT, "")])
    z = torch.randn(1, *backbone.latent_shape())
    process = build.assemble(config, backbone, None, build.pairs_of(config), Calls(1), CPU).parts.process
    step = process.steps[1]
    with torch.no_grad():
        read = backbone.predict(z, step, given, Guider(), attention="prompt")
        plain = backbone.predict(z, step, given, Guider())
    rows, columns = (side // backbone.family.patch for side in z.shape[-2:])
    assert read.attention.shape == (1, rows, columns, given.prompt.shape[1])
    torch.testing.assert_close(read.attention.sum(dim=-1), torch.ones(1, rows, columns))
    assert torch.equal(read.eps, plain.eps)
    if given.mask_prompt is not None:
        assert float(read.attention[..., ~given.mask_prompt[0]].max()) == 0
