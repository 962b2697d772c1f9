"""diffusers' switches of a network: refused in one line where they cannot work, before any work."""

import pytest

from align.__main__ import main
from align.runner import switches

GUIDED = ["backbone=sd35_medium", "method=dymo"]
FLUX = ["backbone=flux_dev", "method=dymo"]
OFFLOAD = "backbone.offload=true"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["backbone=toy_gmm", "backbone.storage=float8"],
            "backbone=toy_gmm has none: give backbone.storage=null",
        ),
        ([*GUIDED, OFFLOAD], "has taken weights away when the gradient of method=dymo comes back"),
        (
            ["backbone=sd35_medium", "method=none", "backbone.attention=native"],
            "attention of layout sd3: give backbone.attention=null",
        ),
        ([*FLUX, "backbone.attention=sage"], "backbone.attention=sage computes no gradient"),
        ([*FLUX, "backbone.attention=xformers"], "adds a gradient up in any order"),
        (["backbone=sdxl", "backbone.attention=flash"], "backbone.attention=flash is of a transformer"),
        (
            ["backbone=flux_dev", "method=none", OFFLOAD, "backbone.compile=true"],
            "give backbone.compile=false",
        ),
        (["backbone=sd35_medium", "method=none", OFFLOAD, "guider=slg"], "guider=slg leaves some out"),
        (["backbone=flux_dev", "method=none", OFFLOAD, "run.device=cpu"], "backbone.offload=true needs CUDA"),
        (
            ["backbone=flux_dev", "method=none", "backbone.attention=_native_flash", "run.device=cpu"],
            "backbone.attention=_native_flash needs CUDA",
        ),
    ],
)
def test_what_cannot_work_is_one_line(options, words, tmp_path, capsys):
    assert main([*options, f"run.folder={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_not_there_is_named(monkeypatch, tmp_path, capsys):
    import torch

    monkeypatch.setattr(switches, "torch_device", lambda name: torch.device("cuda"))
    assert (
        main(["backbone=flux_dev", "method=none", "backbone.attention=flash", f"run.folder={tmp_path}"]) == 2
    )
    assert "needs the package flash_attn, not there: install it" in capsys.readouterr().err
