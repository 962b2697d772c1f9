"""Memory by calculation against what was counted on the published layouts at full size."""

import json
import shutil

import pytest
import torch
from hub_box import write_sd
from safetensors.torch import save_file
from tiny_transformers import write_sd3

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.errors import WrongWeights
from align.runner import calls, memory
from align.runner.files import Files
from align.runner.memory import (
    RECOMPUTED,
    blocks,
    counted,
    kept_by_decoder,
    kept_by_network,
    kept_by_unet,
    memory_line,
    predicted,
    width,
)
from align.runner.plan import Item

MEDIUM = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "dual_attention_layers": list(range(13)),
}
LARGE = {"num_layers": 38, "num_attention_heads": 38, "attention_head_dim": 64, "dual_attention_layers": []}
FLUX = {"num_layers": 19, "num_single_layers": 38, "num_attention_heads": 24, "attention_head_dim": 128}
WITHIN = 0.15


@pytest.mark.parametrize(
    ("network", "text", "image", "kept"),
    [
        (MEDIUM, 333, 4096, 6.9),
        (MEDIUM, 333, 1024, 2.0),
        (LARGE, 333, 4096, 13.2),
        (LARGE, 333, 1024, 4.0),
        (FLUX, 512, 4096, 21.6),
        (FLUX, 512, 1024, 7.2),
        (FLUX, 256, 4096, 20.4),
    ],
)
def test_what_a_way_back_keeps_of_a_row(network, text, image, kept):
    assert 2e-9 * kept_by_network(network, image, text) == pytest.approx(kept, rel=WITHIN)


SD15 = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
}


@pytest.mark.parametrize(
    ("network", "side", "kept"), [(SD15, 64, 0.775), (SD15, 32, 0.197), (SDXL, 128, 5.33), (SDXL, 64, 1.35)]
)
def test_what_the_way_back_of_a_unet_keeps_of_a_row(network, side, kept):
    assert 2e-9 * kept_by_unet(network, side**2) == pytest.approx(kept, rel=WITHIN)


@pytest.mark.parametrize(
    ("network", "text", "entries", "block"),
    [(MEDIUM, 333, 0.34, 0.29), (LARGE, 333, 0.84, 0.35), (FLUX, 512, 1.6, 0.38)],
)
def test_what_is_kept_where_blocks_are_computed_again(network, text, entries, block):
    tokens = 4096 + text
    assert 2e-9 * tokens * width(network) * blocks(network) == pytest.approx(entries, rel=WITHIN)
    assert 2e-9 * kept_by_network(network, 4096, text) / blocks(network) == pytest.approx(block, rel=WITHIN)


@pytest.mark.parametrize(("side", "kept", "recomputed"), [(1024, 11.9, 3.0), (512, 3.0, 0.75)])
def test_what_a_decoder_keeps(side, kept, recomputed):
    decoder = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}
    assert 2e-9 * side**2 * kept_by_decoder(decoder) == pytest.approx(kept, rel=WITHIN)
    assert 2e-9 * side**2 * kept_by_decoder(decoder, RECOMPUTED) == pytest.approx(recomputed, rel=WITHIN)


def test_weights_are_counted_in_the_headers_of_all_shards(tmp_path):
    for number in (1, 2):
        save_file({f"{number}.a": torch.zeros(3, 5), f"{number}.b": torch.zeros(())}, tmp_path / str(number))
    assert counted([tmp_path / "1", tmp_path / "2"]) == 32
    (tmp_path / "3").write_bytes(b"\x08\0\0\0\0\0\0\0" + json.dumps([1]).encode())
    with pytest.raises(WrongWeights, match="not a readable safetensors file"):
        counted([tmp_path / "3"])


def write_headers(path, numbers):
    """A file of weights of which only the header is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps(
        {"a": {"dtype": "BF16", "shape": [numbers // 1000, 1000], "data_offsets": [0, 2 * numbers]}}
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Stable Diffusion 3.5 large as published, in numbers of parameters and sizes."""
    folder = tmp_path_factory.mktemp("large")
    write_sd3(folder, 1)
    shutil.rmtree(folder / "text_encoder_3")
    for part, config, parameters in (
        ("transformer", {"_class_name": "SD3Transformer2DModel", **LARGE, "in_channels": 16}, 8_147_000_000),
        (
            "vae",
            {"block_out_channels": [128, 256, 512, 512], "latent_channels": 16, "layers_per_block": 2},
            83_800_000,
        ),
        ("text_encoder", {}, 124_000_000),
        ("text_encoder_2", {}, 695_000_000),
        ("text_encoder_3", {}, 4_762_000_000),
    ):
        stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
        write_headers(folder / part / f"{stem}.safetensors", parameters)
        (folder / part / "config.json").write_text(json.dumps(config))
    return folder


def files_of_large(folder, *options):
    (job,) = jobs_of(parse(["backbone=sd35_large", f"backbone.weights={folder}", *options]))
    return Files(job.config)


GUIDED = ("method=dymo",)
AGAIN = (*GUIDED, "backbone.checkpointing=true")


@pytest.mark.parametrize(
    ("options", "weights", "encoders", "row"),
    [
        (("method=none",), 16.5, 11.2, 2.1),
        (GUIDED, 16.5, 11.2, 2 * 13.2 + 11.9),
        ((*GUIDED, "guider=slg"), 16.5, 11.2, 3 * 13.2 + 11.9),
        (AGAIN, 16.5, 11.2, 2 * (0.84 + 0.35) + 3.0),
        ((*AGAIN, "backbone.storage=float8"), 8.3, 11.2, 2 * (0.84 + 0.35) + 3.0),
        (("method=none", "backbone.t5=false"), 16.5, 1.6, 2.1),
        (("method=none", "backbone.offload=true"), 1.0, 11.2, 2.1),
        (("method=none", "backbone.height=512", "backbone.width=512"), 16.5, 11.2, 0.54),
    ],
)
def test_a_large_model_in_all(large, options, weights, encoders, row):
    found = predicted(files_of_large(large, *options))
    assert found.weights == pytest.approx(weights, rel=WITHIN)
    assert found.encoders == pytest.approx(encoders, rel=WITHIN)
    assert found.row == pytest.approx(row, rel=WITHIN)


@pytest.mark.parametrize(
    ("options", "gb", "rows"),
    [(("method=none",), 24, 1), (("method=none",), 80, 8), (GUIDED, 80, 1), (GUIDED, 150, 2), (AGAIN, 48, 4)],
)
def test_calls_have_as_many_rows_as_there_is_memory(large, options, gb, rows, monkeypatch):
    monkeypatch.setattr(calls, "torch_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(calls, "gb_of", lambda device: gb)
    files, items = files_of_large(large, *options), [Item(str(n), "a", "", 0, n, n) for n in range(100)]
    assert calls.calls_of(files.config, items, files).most == rows


def test_what_does_not_fit_is_told_with_what_takes_less(large, monkeypatch):
    monkeypatch.setattr(memory, "torch_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(memory, "gb_of", lambda device: 24.0)
    assert memory_line(files_of_large(large, *GUIDED)).endswith(
        "; more than the 24 GB of cuda: backbone.storage=float8, .checkpointing=true and .offload=true take less"
    )
    assert "more than" not in memory_line(files_of_large(large, *AGAIN, "backbone.storage=float8"))


@pytest.fixture(scope="module")
def sd15(tmp_path_factory):
    """Stable Diffusion 1.5 as published, in numbers of parameters and sizes."""
    folder = tmp_path_factory.mktemp("sd15")
    write_sd(folder, 1)
    for part, config, parameters in (
        ("unet", SD15, 859_520_964),
        ("vae", {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}, 83_653_863),
        ("text_encoder", {}, 123_060_480),
    ):
        stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
        write_headers(folder / part / f"{stem}.safetensors", parameters)
        stated = json.loads((folder / part / "config.json").read_text())
        (folder / part / "config.json").write_text(json.dumps(stated | config))
    return folder


def files_of_sd15(folder, *options):
    common = [
        "backbone=sd15",
        f"backbone.weights={folder}",
        "sampler=ddim_50",
        "sampler.eta=1",
        "reward=pickscore",
    ]
    return Files(jobs_of(parse([*common, *options]))[0].config)


def test_noise_of_stable_diffusion_is_optimised_in_24_gb(sd15):
    for dtype, row in (("float16", 3.2), ("float32", 6.2)):
        found = predicted(files_of_sd15(sd15, "method=dno", f"backbone.dtype={dtype}"))
        assert found.row == pytest.approx(row, rel=0.05)
        assert found.weights + found.row < 24


def test_few_steps_keep_all_their_calls(sd15):
    one, four, five = (
        predicted(files_of_sd15(sd15, "method=reno", f"sampler.steps={steps}")).row for steps in (1, 4, 5)
    )
    assert one < four
    assert five < one


def test_the_plan_tells_what_optimised_noise_takes(sd15):
    assert "GB a row" in memory_line(files_of_sd15(sd15, "method=dno"))
    assert memory_line(files_of_sd15(sd15, "method=none")) == ""
