"""Each family against its pipeline's own ``__call__``, on tiny random weights; and what loading says of them."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline
from hub_box import save, text_encoder
from safetensors.torch import save_file
from tiny_transformers import write_flux, write_sd3

from align.backbones.base import Conditioning
from align.backbones.compiling import compile_blocks
from align.backbones.guider import Guider
from align.backbones.recipe import Recipe
from align.backbones.registry import load, pieces, stated
from align.errors import WrongWeights
from align.processes.base import kernel
from align.processes.flow import flow

CPU = torch.device("cpu")
LONG = "a very long description of a lighthouse at dusk with its lamp lit, " * 12
WRITERS = {
    "sd3": (lambda folder: write_sd3(folder, 1), "sd3", "pair"),
    "no t5": (lambda folder: write_sd3(folder, 1, t5=False), "sd3", "pair"),
    "flux": (lambda folder: write_flux(folder, 2), "flux", "embedded"),
    "schnell": (lambda folder: write_flux(folder, 3, guidance=False), "flux", "none"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name, (write, *_) in WRITERS.items():
        made[name] = tmp_path_factory.mktemp(name.replace(" ", "-"))
        write(made[name])
    return made


def backbone_of(folder, name, height=32, width=32, **options):
    _, layout, guidance = WRITERS[name]
    return load(Recipe((str(folder),), layout, guidance=guidance), CPU, height, width, **options)


CALLS = {
    "sd3": [
        {"prompt": "a red cat"},
        {"prompt": "a red cat", "negative_prompt": "blurry", "height": 48, "width": 32},
        {"prompt": LONG, "negative_prompt": LONG[:90], "guidance_scale": 7.0, "height": 32, "width": 64},
        {"prompt": "a red cat", "guidance_scale": 1.0},
    ],
    "no t5": [{"prompt": "a red cat", "negative_prompt": "", "height": 32, "width": 48}],
    "flux": [
        {"prompt": "a red cat"},
        {"prompt": LONG, "height": 48, "width": 32, "guidance_scale": 2.0},
        {
            "prompt": "a red cat",
            "negative_prompt": "blurry",
            "true_cfg_scale": 3.0,
            "height": 32,
            "width": 64,
        },
        {"prompt": LONG, "negative_prompt": LONG, "true_cfg_scale": 2.0, "guidance_scale": 1.0},
    ],
    "schnell": [{"prompt": "a red cat", "height": 64, "width": 32}],
}


@torch.no_grad()
@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in CALLS.items() for call in calls])
def test_pictures_are_the_pipelines(folders, name, call, monkeypatch):
    """To rounding, from the text on: square or not, with a negative prompt or none, short prompts or long."""
    folder, steps = folders[name], 3
    call = {"height": 32, "width": 32, "guidance_scale": 4.0, **call}
    absent = {"text_encoder_3": None, "tokenizer_3": None} if name == "no t5" else {}
    theirs = DiffusionPipeline.from_pretrained(folder, **absent)
    theirs.set_progress_bar_config(disable=True)
    z = torch.randn(
        1, 16, call["height"] // 8, call["width"] // 8, generator=torch.Generator().manual_seed(3)
    )
    latents = z
    if "flux" in WRITERS[name][1]:
        latents = theirs._pack_latents(z, 1, 16, *z.shape[2:])
    wanted = theirs(
        **call, num_inference_steps=steps, latents=latents, max_sequence_length=64, output_type="pt"
    ).images
    ours = backbone_of(folder, name, call["height"], call["width"], max_sequence_length=64)
    given = Conditioning.of([ours.encode(call["prompt"], call.get("negative_prompt", ""))])
    scale = call["guidance_scale"]
    guider = Guider(scale if ours.guidance == "pair" else call.get("true_cfg_scale", 1.0), embedded=scale)
    for step in flow(ours.scheduler_config, steps, 0.0).steps:
        found = ours.predict(z, step, given, guider, correction=False)
        z = kernel(found.x0, found.eps, step).mean
    torch.testing.assert_close(ours.decode(z).clamp(0, 1), wanted, rtol=0, atol=2e-5)


def test_one_clip_encoder_alone_gives_its_last_states_and_its_pooled_output(tmp_path):
    """As the embedded world's flow has it, in Stable Diffusion 3's layout."""
    write_sd3(tmp_path, 1, t5=False, joint_attention_dim=8, pooled_projection_dim=8)
    save(text_encoder(4, 8), tmp_path / "text_encoder")
    index = json.loads((tmp_path / "model_index.json").read_text())
    for name in ("text_encoder_2", "tokenizer_2"):
        del index[name]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    backbone = backbone_of(tmp_path, "sd3")
    read = backbone.encode("a red cat", "")
    tokenizer, encoder = backbone.text.encoders[0]
    ids = tokenizer("a red cat", padding="max_length", return_tensors="pt").input_ids
    found = encoder(ids)
    assert torch.equal(read.prompt, found.last_hidden_state[0])
    assert torch.equal(read.pooled_prompt, found.pooler_output[0])
    assert read.parts == ((0, 77),)
    assert backbone.guidance == "pair"


def test_prompts_are_cut_by_each_encoder_for_itself(folders):
    backbone = backbone_of(folders["sd3"], "sd3", max_sequence_length=128)
    within, beyond, far_beyond = (backbone.encode("a" * number, "") for number in (50, 100, 200))
    assert [read.cut for read in (within, beyond, far_beyond)] == [(), ("clip",), ("clip", "t5")]
    assert [read.truncated for read in (within, beyond, far_beyond)] == [False, False, True]
    assert within.parts == ((0, 77), (77, 77 + 128))
    assert len(within.offsets) == len(within.prompt) == 77 + 128
    flux = backbone_of(folders["flux"], "flux", max_sequence_length=128)
    assert flux.encode("a" * 100, "").cut == ("clip",)
    assert flux.encode("a red cat", "").parts == ((0, 128),)


def test_t5_can_be_left_out(folders):
    with_t5, without = (Recipe((str(folders["sd3"]),), "sd3", t5=t5, guidance="pair") for t5 in (True, False))
    assert any("text_encoder_3" in name for name in pieces(with_t5)[0].files)
    assert not any("_3" in name for name in pieces(without)[0].files)
    backbone = load(without, CPU, 32, 32)
    assert not backbone.encode("a red cat", "").prompt[77:].any()


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_maps_are_shares_of_text_and_are_recomputed_as_they_were(folders, name):
    slopes, maps = [], []
    for checkpointing in (False, True):
        backbone = backbone_of(folders[name], name, 32, 48, checkpointing=checkpointing)
        given = Conditioning.of([backbone.encode(text, "") for text in ("a red cat", "two blue dogs")])
        z = torch.randn(2, *backbone.latent_shape(), generator=torch.Generator().manual_seed(1))
        z.requires_grad_()
        step = flow(backbone.scheduler_config, 4, 0.0).steps[1]
        found = backbone.predict(z, step, given, Guider(3.0 if name == "sd3" else 1.0), attention="prompt")
        assert found.attention.shape == (2, 2, 3, len(given.prompt[0]))
        torch.testing.assert_close(found.attention.sum(dim=-1), torch.ones(2, 2, 3))
        for _ in range(2):  # A graph can be walked back again.
            loss = found.attention.square().sum() + found.x0.square().sum()
            (slope,) = torch.autograd.grad(loss, z, retain_graph=True)
        slopes.append(slope)
        maps.append(found.attention)
    torch.testing.assert_close(*maps)
    torch.testing.assert_close(*slopes)


def test_a_network_without_a_pair_has_no_correction(folders):
    backbone = backbone_of(folders["flux"], "flux")
    rows = []
    backbone.network.register_forward_hook(lambda module, inputs, output: rows.append(len(output[0])))
    given = Conditioning.of([backbone.encode("a red cat", "blurry")])
    z = torch.randn(1, *backbone.latent_shape(), generator=torch.Generator().manual_seed(1))
    step = flow(backbone.scheduler_config, 4, 0.0).steps[1]
    plain = backbone.predict(z, step, given, Guider(1.0, embedded=3.5))
    true = backbone.predict(z, step, given, Guider(3.0, embedded=3.5))
    assert rows == [1, 2]
    assert not plain.correction.any()
    assert true.correction.any()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "flux",
            {"guidance": "none"},
            "guidance_embeds=true is not of backbone.guidance=none: give embedded",
        ),
        ("schnell", {"guidance": "embedded"}, "guidance_embeds=false is not of .*: give none"),
        ("sd3", {"layout": "flux", "guidance": "embedded"}, "lacks|config.json"),
    ],
)
def test_what_the_files_do_not_say_is_refused(folders, name, options, said):
    _, layout, guidance = WRITERS[name]
    recipe = Recipe((str(folders[name]),), **{"layout": layout, "guidance": guidance, **options})
    with pytest.raises(WrongWeights, match=said):
        stated(recipe)


def test_sides_and_blocks_that_are_none_are_refused(folders):
    with pytest.raises(WrongWeights, match=r"backbone\.width=40 is no multiple of 16"):
        backbone_of(folders["sd3"], "sd3", 32, 40)
    with pytest.raises(WrongWeights, match=r"attention_blocks=\[9\]: 9 is none of its 4 blocks"):
        backbone_of(folders["sd3"], "sd3", attention_blocks=[9])


def low_rank(network, ending, seed):
    """Updates of rank 2, strong enough to be seen, of layers by their names' ending: (name, A, B) each."""
    generator = torch.Generator().manual_seed(seed)
    for name, layer in network.named_modules():
        if name.endswith(ending):
            rows, columns = layer.weight.shape
            yield (
                name,
                torch.randn(2, columns, generator=generator),
                torch.randn(rows, 2, generator=generator),
            )


@pytest.mark.parametrize("form", ["diffusers", "peft"])
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_a_lora_is_merged_into_a_transformer(folders, tmp_path, name, form):
    """As its trainers save them: in diffusers' names, or peft's own beside its config, as Flow-GRPO and DiffusionNFT have it."""
    plain = backbone_of(folders[name], name)
    prefix = "transformer." if form == "diffusers" else "base_model.model."
    updates = list(low_rank(plain.network, ("attn.to_q", "attn.add_k_proj"), 5))
    state = {f"{prefix}{layer}.lora_A.weight": a for layer, a, _ in updates}
    state |= {f"{prefix}{layer}.lora_B.weight": b for layer, _, b in updates}
    file = tmp_path / ("lora.safetensors" if form == "diffusers" else "adapter_model.safetensors")
    save_file(state, file)
    scale = 1.0
    if form == "peft":
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["attn.to_q"]}
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        scale = 2.0
    _, layout, guidance = WRITERS[name]
    merged = load(
        Recipe((str(folders[name]),), layout, guidance=guidance, lora=str(file)), CPU, 32, 32
    ).network
    assert len(updates) > 2
    for layer, a, b in updates:
        before, after = (one.get_submodule(layer).weight for one in (plain.network, merged))
        torch.testing.assert_close(after, before + scale * b @ a)


def test_a_flux_lora_in_kohyas_names_is_parted_as_diffusers_parts_it(folders, tmp_path):
    plain = backbone_of(folders["flux"], "flux")
    width = plain.network.inner_dim
    generator = torch.Generator().manual_seed(6)
    down, up = torch.randn(2, width, generator=generator), torch.randn(3 * width, 2, generator=generator)
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    state = {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": up,
        f"{name}.alpha": torch.tensor(1.0),
    }
    save_file(state, tmp_path / "lora.safetensors")
    recipe = Recipe(
        (str(folders["flux"]),), "flux", guidance="embedded", lora=str(tmp_path / "lora.safetensors")
    )
    merged = load(recipe, CPU, 32, 32).network
    for part, layer in zip(up.chunk(3), ("to_q", "to_k", "to_v"), strict=True):
        before, after = (
            one.get_submodule(f"transformer_blocks.0.attn.{layer}").weight for one in (plain.network, merged)
        )
        torch.testing.assert_close(after, before + 0.5 * part @ down)


@pytest.mark.slow
@pytest.mark.parametrize("attention", [None, "prompt"])
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_compiled_blocks_predict_the_same_with_the_probe_and_without(folders, name, attention):
    """Each block is one graph, or it would raise."""
    backbone = backbone_of(folders[name], name)
    given = Conditioning.of([backbone.encode("a red cat", "")])
    z = torch.randn(1, *backbone.latent_shape(), generator=torch.Generator().manual_seed(1))
    step = flow(backbone.scheduler_config, 4, 0.0).steps[1]
    guider = Guider(3.0 if name == "sd3" else 1.0)
    eager = backbone.predict(z, step, given, guider, attention)
    compile_blocks(backbone.network, backend="eager")
    found = backbone.predict(z, step, given, guider, attention)
    torch._dynamo.reset()
    torch.testing.assert_close(found.x0, eager.x0)
    assert attention is None or found.attention.shape == eager.attention.shape
    if attention is not None:
        torch.testing.assert_close(found.attention, eager.attention)


@torch.no_grad()
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_sixteen_bit_networks_predict_in_float32(folders, name):
    _, layout, guidance = WRITERS[name]
    recipe = Recipe((str(folders[name]),), layout, guidance=guidance, dtype="bfloat16")
    ours, full = load(recipe, CPU, 32, 32), backbone_of(folders[name], name)
    assert ours.network.dtype == ours.vae.dtype == torch.bfloat16
    z = torch.randn(1, *ours.latent_shape(), generator=torch.Generator().manual_seed(1))
    step = flow(ours.scheduler_config, 4, 0.0).steps[1]
    guider = Guider(3.0 if name == "sd3" else 1.0, embedded=3.0)
    short, exact = (
        one.predict(z, step, Conditioning.of([one.encode("a red cat", "")]), guider) for one in (ours, full)
    )
    assert short.x0.dtype == torch.float32
    assert float((short.x0 - exact.x0).abs().max()) < 0.2 * float(exact.x0.abs().max())
    assert ours.decode(short.x0).dtype == torch.float32
