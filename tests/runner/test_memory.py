"""Memory by calculation against what was counted on the published layouts at full size."""

import json

import pytest
import torch
from safetensors.torch import save_file

from align.errors import WrongWeights
from align.runner.memory import RECOMPUTED, blocks, counted, kept_by_decoder, kept_by_network, width

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
