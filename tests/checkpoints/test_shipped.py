"""Weights that come with the package are refused where they are not what was recorded."""

import pytest

from align.__main__ import main
from align.checkpoints import shipped
from align.checkpoints.reference import EMBEDDED, TRAINED
from scripts.record_weights import record

RUN = ["prompts=text", "prompts.text=[a red circle]", "run.device=cpu", "metrics=none"]


def test_the_list_is_of_the_weights_that_are_here():
    """If not: python scripts/record_weights.py."""
    assert (shipped.FOLDER / shipped.SUMS).read_text() == record()


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["backbone=shapes"], EMBEDDED["shapes"] / "unet/diffusion_pytorch_model.safetensors"),
        (["backbone=shapes_spo"], TRAINED["shapes_spo"]),
        (
            ["backbone=shapes_flow"],
            EMBEDDED["shapes_flow"] / "transformer/diffusion_pytorch_model.safetensors",
        ),
        (["backbone=shapes_turbo"], EMBEDDED["shapes_turbo"] / "diffusion_pytorch_model.safetensors"),
        (["metrics.rewards=[shapes_pick]"], EMBEDDED["shapes"] / "shapes_pick/model.safetensors"),
    ],
)
def test_another_file_is_told_in_one_line_before_any_work(words, path, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(shipped.sums(), path, "0" * 64)
    assert main([*RUN, *words, f"run.folder={tmp_path}"]) == 3
    err = capsys.readouterr().err
    assert err.startswith(f"align: {path} is damaged or not the one that comes with the package")
    assert err.count("\n") == 1
    assert not list(tmp_path.rglob("*.png"))
    if not words[0].startswith("metrics"):
        assert main(["doctor", *words]) == 3
        out = capsys.readouterr().out
        assert f"DAMAGED: {path}" in out
        assert "cannot run" in out
