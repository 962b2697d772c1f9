"""What a backbone's JSON files state is honoured, or refused before anything is loaded or made."""

import json
import shutil
import sys

import pytest
import torch
from diffusers import AutoencoderTiny
from tiny import load_tiny

from align.__main__ import main
from align.backbones import registry
from align.backbones.attention import cross_attention_layers
from align.backbones.recipe import Recipe
from align.backbones.small_decoder import load_small_decoder
from align.backbones.stated import attention_strides, check_small_decoder
from align.config.errors import ConfigError
from align.config.sampler import SamplerConfig
from align.errors import WrongWeights
from align.runner.prepare import _check_steps

CPU = torch.device("cpu")
MEAN, STD = [0.5, -0.25, 0.0, 1.5], [2.0, 0.5, 1.0, 3.0]


@pytest.fixture
def pipeline(pipeline_folder, tmp_path):
    return shutil.copytree(pipeline_folder, tmp_path / "pipeline")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


REFUSED = {
    "another process": (
        "scheduler/scheduler_config",
        {"_class_name": "EDMEulerScheduler"},
        "_class_name=EDM",
    ),
    "inpainting": ("unet/config", {"in_channels": 9}, "in_channels=9"),
    "edited pictures": ("unet/config", {"in_channels": 8}, "in_channels=8"),
    "variances": ("unet/config", {"out_channels": 8}, "out_channels=8"),
    "noise levels": ("unet/config", {"num_class_embeds": 1000}, "num_class_embeds=1000"),
    "labels": ("unet/config", {"class_embed_type": "timestep"}, "class_embed_type=timestep"),
    "pictures": ("unet/config", {"encoder_hid_dim_type": "image_proj"}, "encoder_hid_dim_type=image_proj"),
    "image prompts": ("unet/config", {"addition_embed_type": "image"}, "addition_embed_type=image"),
    "the other guidance": ("unet/config", {"time_cond_proj_dim": 256}, "time_cond_proj_dim=256"),
    "another encoder": ("unet/config", {"cross_attention_dim": 1024}, "cross_attention_dim=1024"),
    "other latents": ("vae/config", {"latent_channels": 16}, "in_channels=4"),
    "no picture": ("vae/config", {"out_channels": 4}, "out_channels=4"),
    "means": ("vae/config", {"latents_mean": [0.0]}, "latents_mean is no list of 4"),
    "deviations": ("vae/config", {"latents_std": [1, 1, 0, 1]}, "latents_std"),
    "scale": ("vae/config", {"scaling_factor": 0}, "scaling_factor=0"),
    "no scale": ("vae/config", {"scaling_factor": None}, "scaling_factor=null"),
    "channels as a text": ("vae/config", {"latent_channels": "4"}, "latent_channels='4'"),
    "a width as a text": ("text_encoder/config", {"hidden_size": "32"}, "hidden_size='32'"),
    "no blocks": ("unet/config", {"down_block_types": None}, "down_block_types is no list"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_sampled_is_refused_in_one_line_and_nothing_is_made(
    case, pipeline, tmp_path, capsys, monkeypatch
):
    name, changes, words = REFUSED[case]
    path = pipeline / f"{name}.json"
    edit(path, **changes)
    monkeypatch.setattr(registry, "load", None)
    run = [
        f"backbone.weights={pipeline}",
        "metrics=none",
        f"run.folder={tmp_path / 'run'}",
        "sampler.steps=3",
    ]
    assert main(run) == 3
    out, err = capsys.readouterr()
    assert err.count("\n") == 1, err
    assert err.startswith(f"align: backbone.weights={pipeline} cannot be loaded: {pipeline}")
    assert "/".join(path.parts[-2:]) in err
    assert words in err
    assert out == ""
    assert not (tmp_path / "run").exists()


def test_a_config_that_is_nested_too_deep_is_named(pipeline, tmp_path, capsys):
    (pipeline / "vae/config.json").write_text("[" * 100_000)
    assert main([f"backbone.weights={pipeline}", "metrics=none", f"run.folder={tmp_path / 'run'}"]) == 3
    assert "vae/config.json is not JSON: it is nested too deep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("sampler.steps=1000", "the largest number up to there is 999"),
        ("backbone.attention_stride=16", "give 1, 2"),
    ],
)
def test_options_that_the_files_do_not_allow_are_refused_before_the_folder(
    option, words, pipeline, tmp_path, capsys
):
    run = [f"backbone.weights={pipeline}", "metrics=none", f"run.folder={tmp_path / 'run'}", option]
    assert main(run) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith(f"align: {option} ")
    assert words in err
    assert not (tmp_path / "run").exists()


def test_a_consistency_model_has_the_steps_that_its_file_says():
    schedule = {"original_inference_steps": 4, "num_train_timesteps": 1000}
    _check_steps(SamplerConfig("lcm", "lcm", 4), schedule, "FILE")
    with pytest.raises(ConfigError, match=r"^sampler.steps=8 .*FILE.* largest number is 4$"):
        _check_steps(SamplerConfig("lcm", "lcm", 8), schedule, "FILE")


def test_the_plan_names_what_is_not_read(pipeline, tmp_path, capsys):
    edit(pipeline / "scheduler/scheduler_config.json", use_karras_sigmas=True)
    run = [
        f"backbone.weights={pipeline}",
        "metrics=none",
        f"run.folder={tmp_path / 'run'}",
        "sampler.steps=1",
    ]
    run += ["backbone.height=32", "backbone.width=32", "prompts.limit=1", "sampler.guidance_scale=1"]
    assert main([*run, "run.gallery=false"]) == 0
    out = capsys.readouterr().out
    assert (
        "sampler=ddim takes the steps; not read of the checkpoint's scheduler: use_karras_sigmas=true" in out
    )
    assert "no negative half at scale 1" in out


def test_the_doctor_says_so_too(pipeline, capsys):
    edit(pipeline / "unet/config.json", in_channels=9)
    assert main(["doctor", f"backbone.weights={pipeline}"]) == 3
    assert "in_channels=9" in capsys.readouterr().out


def test_latents_are_scaled_and_shifted_as_the_autoencoder_states(pipeline):
    edit(
        pipeline / "vae/config.json", latents_mean=MEAN, latents_std=STD, shift_factor=0.1, scaling_factor=0.5
    )
    backbone = load_tiny(pipeline, height=32, width=32)
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(one).view(1, 4, 1, 1) for one in (MEAN, STD))
    expected = backbone.vae.decode(z * std / 0.5 + mean + 0.1).sample / 2 + 0.5
    torch.testing.assert_close(backbone.decode(z), expected)


@pytest.fixture
def small(tmp_path):
    torch.manual_seed(0)
    shape = {name: (4, 4) for name in ("encoder_block_out_channels", "decoder_block_out_channels")}
    model = AutoencoderTiny(**shape, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).eval()
    model.save_pretrained(tmp_path / "small")
    return model, tmp_path / "small"


def test_a_small_decoder_too(small):
    model, folder = small
    edit(folder / "config.json", latents_mean=MEAN, latents_std=STD, scaling_factor=0.5)
    decode = load_small_decoder(folder, "diffusion_pytorch_model.safetensors", (4, 4, 4), CPU, torch.float32)
    z = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(one).view(1, 4, 1, 1) for one in (MEAN, STD))
    with torch.no_grad():
        expected = (model.decode(z * std / 0.5 + mean).sample + 1) / 2
    torch.testing.assert_close(decode(z), expected)
    edit(folder / "config.json", latents_mean=[1.0])
    with pytest.raises(WrongWeights, match="latents_mean is no list of 4"):
        load_small_decoder(folder, "diffusion_pytorch_model.safetensors", (4, 4, 4), CPU, torch.float32)


def test_a_small_decoder_of_other_latents_is_refused(small, pipeline):
    config = small[1] / "config.json"
    check_small_decoder(config, registry.stated(Recipe((str(pipeline),))))
    edit(pipeline / "vae/config.json", latents_mean=MEAN)
    shifted = registry.stated(Recipe((str(pipeline),)))
    with pytest.raises(ValueError, match="autoencoder states latents_mean and this decoder states none"):
        check_small_decoder(config, shifted)
    edit(config, latents_mean=MEAN)
    check_small_decoder(config, shifted)


def test_the_strides_of_attention_are_those_of_the_layers(pipeline):
    network = load_tiny(pipeline, height=32, width=32).unet
    assert cross_attention_layers(network).keys() == attention_strides(network.config)
    down = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    config = {
        "down_block_types": down,
        "up_block_types": down[::-1],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
    }
    assert attention_strides(config) == {2, 4}
    assert (
        attention_strides(
            {**config, "down_block_types": down[:1] * 3, "up_block_types": (), "mid_block_type": None}
        )
        == set()
    )


def test_checking_imports_nothing_heavy():
    import subprocess

    code = "import sys, align.backbones.registry; assert not {'torch', 'diffusers'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
