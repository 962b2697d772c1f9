"""Every reward by name, with what can be known without importing torch, and how to load it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.checkpoints import reference
from align.checkpoints.needed import Needed
from align.errors import MissingWeights
from align.rewards.errors import UnknownReward
from align.rewards.looking import LOOKING
from align.rewards.published import PUBLISHED
from align.rewards.sources import Checkpoint
from align.rewards.spec import RewardSpec, network

if TYPE_CHECKING:
    import torch

    from align.rewards.base import Reward

EMBEDDED = reference.EMBEDDED["shapes"]
"""Where the weights of the embedded world are."""


def _jpeg(name: str, paths: Sequence[Path], device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.formulas import JpegReward

    return JpegReward(name, -1.0 if name == "jpeg_compressibility" else 1.0)


def _toy(name: str, paths: Sequence[Path], device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.formulas import ToyReward

    return ToyReward(name)


def _embedded(*names: str) -> tuple[Checkpoint, ...]:
    return (Checkpoint("shapes", names),)


ELSEWHERE: dict[str, RewardSpec] = {
    name: RewardSpec(
        summary,
        network("elsewhere.judge", lambda paths: {}),
        differentiable=False,
        section=name,
        reads_metadata=name != "vlm",
    )
    for name, summary in {
        "http": "a judge behind a URL, by a protocol of JSON and PNG: judges.http.endpoint=URL",
        "vlm": "a vision-language model behind a chat endpoint, asked about each picture: judges.vlm.endpoint=URL",
        "process": "a judge in another interpreter, on a pipe: 'judges.process.command=[PROGRAM]'",
    }.items()
}
"""Those whose model is elsewhere; what they are is told by the options of ``judges``."""

REWARDS: dict[str, RewardSpec] = {
    "shapes_pick": RewardSpec(
        "CLIP tuned on preference pairs, like PickScore: exp(logit_scale) * cosine",
        network("clip"),
        _embedded("shapes_pick", "tokenizer"),
    ),
    "shapes_hps": RewardSpec(
        "open_clip model tuned on rankings, like HPSv2: the bare cosine",
        network("open_clip"),
        _embedded("shapes_hps", "tokenizer"),
    ),
    "shapes_imagereward": RewardSpec(
        "BLIP with a regression head, like ImageReward: standardised value",
        network("imagereward"),
        _embedded("shapes_imagereward", "tokenizer"),
    ),
    "shapes_aesthetic": RewardSpec(
        "MLP on CLIP image embeddings, like the LAION aesthetic predictor: 0 to 10, prompt ignored",
        network("aesthetic"),
        _embedded("shapes_aesthetic"),
        reads_prompt=False,
    ),
    "shapes_spm": RewardSpec(
        "timestep-conditioned CLIP, like SPO's step-aware preference model: exp(logit_scale) * cosine",
        network("step_aware"),
        _embedded("shapes_spm", "tokenizer"),
        takes_timestep=True,
    ),
    **PUBLISHED,
    **LOOKING,
    **ELSEWHERE,
    "jpeg_compressibility": RewardSpec(
        "minus the kilobytes of the picture as JPEG", _jpeg, differentiable=False, reads_prompt=False
    ),
    "jpeg_incompressibility": RewardSpec(
        "kilobytes of the picture as JPEG", _jpeg, differentiable=False, reads_prompt=False
    ),
    "toy_linear": RewardSpec("x - y/2 of a toy backbone's coordinates", _toy, reads_prompt=False),
    "toy_gmm": RewardSpec("-x^2/100 - y^2, likewise", _toy, reads_prompt=False),
    "toy_gmm2": RewardSpec("-x^2 - (y - 1)^2/10, likewise", _toy, reads_prompt=False),
    "toy_swiss_roll": RewardSpec("-(x^2 + y^2)/100 - z^2, likewise", _toy, reads_prompt=False),
}


def spec(name: str) -> RewardSpec:
    """Facts of a reward. Raises UnknownReward, which names the nearest."""
    if name not in REWARDS:
        raise UnknownReward("reward", name, REWARDS)
    return REWARDS[name]


def usual() -> list[str]:
    """Names to choose from, sorted: without those of the same judge asked in another way, ``NAME_HOW``."""
    return sorted(name for name in REWARDS if not any(name.startswith(f"{other}_") for other in REWARDS))


def find(name: str, folder: Path = EMBEDDED) -> list[Needed]:
    """The files of a reward, one entry for each checkpoint that it reads. Raises UnknownReward."""
    what = f"reward {name}"
    return [
        one.find(what if number == 0 else f"{what} ({one.reference})", folder)
        for number, one in enumerate(spec(name).weights)
    ]


def describe(name: str, found: Sequence[Needed]) -> dict[str, str]:
    """Facts of a published reward, with the revisions of the checkpoints that were found; nothing of another."""
    known = spec(name)
    if not known.facts:
        return {}
    pairs = zip(known.weights, found, strict=True)
    return {
        **known.facts,
        **{f"revision of {one.reference}": files.revision or "local" for one, files in pairs},
    }


def load(
    name: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    folder: Path = EMBEDDED,
    **options: Any,
) -> Reward:
    """Load a reward, its towers in the numbers that its entry says unless told otherwise, whatever the checkpoint's are.

    ``options`` are further arguments of its loader, where its spec names a ``section``.

    Raises UnknownReward for another name than those of ``REWARDS``; MissingWeights, WrongWeights.
    """
    import torch

    found = find(name, folder)
    if gone := [str(path) for one in found for path in one.paths if not path.exists()]:
        mends = dict.fromkeys(one.mend for one in found)
        raise MissingWeights(f"reward {name} needs {', '.join(gone)}; to fetch it: {'; '.join(mends)}")
    dtype = dtype or getattr(torch, spec(name).dtype)
    reward = spec(name).loader(name, [path for one in found for path in one.paths], device, dtype, **options)
    if known := describe(name, found):
        reward.fingerprint = {**reward.fingerprint, **known, "dtype": str(dtype).removeprefix("torch.")}
    return reward
