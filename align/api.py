"""The project from Python: sample, improve a pipeline that is there, score, open a run.

Nothing is written and nothing printed.  What the command refuses in one line is raised with that line
(``align.config.errors.ConfigError``, ``align.errors.WeightsError``).  Options are those of the command.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config.schema import Config

if TYPE_CHECKING:
    import pandas
    from PIL.Image import Image

    from align.rewards.base import Reward
    from align.runner.plan import Item
    from align.sampling.sampler import Samples


@dataclass(frozen=True)
class Picture:
    """One picture made.

    Attributes:
        image: 8-bit RGB; ``None`` if it failed.
        prompt, seed, sample: what was asked for.
        cost: evaluations spent on it, by the names of the columns of ``results.csv``.
        seconds: its share of the wall-clock time of what it was made with.
        info: further figures, as in the columns ``info_*``.
        error: why it failed, if it did.
    """

    image: Image | None
    prompt: str
    seed: int
    sample: int
    cost: Mapping[str, int]
    seconds: float
    info: Mapping[str, int | float | str]
    error: str | None = None

    def _repr_png_(self) -> bytes | None:
        """What notebooks show."""
        from align.store.pictures import png_bytes

        return None if self.image is None else png_bytes(self.image)


def sample(
    prompts: str | Sequence[str],
    *options: str,
    method: str = "none",
    backbone: str = "shapes",
    seed: int = 0,
    samples: int = 1,
) -> list[Picture]:
    """Make pictures: those of ``python -m align method=... backbone=...``, byte for byte.

    Args:
        prompts: one text or several.
        options: more of the command, such as ``"reward=pickscore"`` or ``"sampler.steps=50"``.
        method: name of a preset, see ``python -m align --help``.
        backbone: likewise.
        seed: of the noise.
        samples: pictures of each prompt, which are side by side in what is returned.

    Raises:
        ConfigError, WeightsError: as the command says it.
    """
    from align.runner.build import build_sampler
    from align.runner.prepare import prepare

    config = _config(prompts, options, method, backbone, seed, samples)
    with _torch(config):
        (prepared,) = prepare([config])
        return _made(build_sampler(prepared.config, prepared.calls), prepared.items)


def improve(
    pipeline: Any,
    prompts: str | Sequence[str],
    *options: str,
    reward: str | Reward,
    method: str = "dymo",
    seed: int = 0,
    samples: int = 1,
    negative: str = "",
) -> list[Picture]:
    """Sample with the modules of a diffusers pipeline that is there: its LoRAs, its numbers, its device.

    Size and number format are the pipeline's, the process that of its scheduler's file; everything else is as the command
    has it for ``backbone=sd15``, ``sdxl`` or ``lcm``, whichever the network is.  Afterwards the pipeline is as it was.

    Args:
        pipeline: Stable Diffusion, Stable Diffusion XL or a latent consistency model.
        prompts: one text or several.
        options: more of the command, such as ``"sampler.steps=30"`` or ``"backbone.height=768"``.
        reward: name of a registered one, or any ``align.rewards.base.Reward`` on the pipeline's device.
        method: name of a preset.
        seed: of the noise.
        samples: pictures of each prompt.
        negative: negative prompt of all.

    Raises:
        ConfigError: the pipeline, or what is asked of it, cannot be had.
        WeightsError: the reward's weights are missing or wrong.
    """
    from align import borrowed
    from align.config.check_budget import refuse_budget
    from align.runner.plan import make_plan
    from align.runner.prompts import load_prompts

    preset, own = borrowed.facts(pipeline)
    if isinstance(reward, str):
        own.append(f"reward={reward}")
    config = _config(prompts, [*own, *options], method, preset, seed, samples)
    borrowed.check_options(options)
    refuse_budget(config, "improve")
    with _torch(config, isinstance(reward, str)), borrowed.backbone(pipeline, config.backbone) as backbone:
        rows = load_prompts(config.prompts).rows
        items = make_plan({}, rows, config.seed, config.samples, negative or config.negative)
        return _made(borrowed.sampler(config, backbone, reward, items), items)


def score(
    pictures: Sequence[Image | Path | str], prompts: Sequence[str], metrics: Sequence[str], *options: str
) -> pandas.DataFrame:
    """Values of finished pictures: those of ``python -m align score``.

    Args:
        pictures: P pictures, or the files that hold them.
        prompts: P texts.
        metrics: names of registered rewards; ``checker`` for the verdicts of the shapes world.
        options: of judges, such as ``"judges.http.endpoint=http://localhost:8000/score"``.

    Returns:
        P rows: the prompt, and a column of each metric; NaN where one says nothing, with a warning that says why.

    Raises:
        ConfigError, WeightsError: as the command says it.
        PictureError: a file holds no picture.
    """
    import pandas
    from PIL.Image import Image

    from align.config.errors import ConfigError, suggestion
    from align.config.schema import MetricsConfig
    from align.pictures import saved_picture, to_rgb
    from align.rewards.registry import REWARDS
    from align.runner.devices import torch_device
    from align.runner.score import CHUNK, Scorer, failure
    from align.store.measured import CHECKER

    if isinstance(prompts, str) or isinstance(metrics, str):
        raise ConfigError("score: give lists of prompts and of metrics, not a text")
    pictures, prompts, metrics = list(pictures), list(prompts), list(metrics)
    for one in pictures:
        if not isinstance(one, str | Path | Image):
            raise ConfigError(
                f"score: {type(one).__name__} is no picture: give Pillow images, or their files"
            )
    if len(pictures) != len(prompts):
        raise ConfigError(f"score: {len(pictures)} pictures for {len(prompts)} prompts")
    for name in metrics:
        if name not in REWARDS and name != CHECKER:
            raise ConfigError(f"score: there is no metric {name!r}{suggestion(name, [*REWARDS, CHECKER])}")
    images = [saved_picture(one)[1] if isinstance(one, str | Path) else to_rgb(one) for one in pictures]
    chosen = MetricsConfig("api", tuple(name for name in metrics if name != CHECKER), CHECKER in metrics)
    judges = None
    if any(name in REWARDS and REWARDS[name].section for name in metrics):
        asked = f"metrics.rewards=[{','.join(chosen.rewards)}]"
        judges = _config("x", [asked, *options], "none", "shapes", 0, 1).judges
    scorer = Scorer(chosen, torch_device("auto"), warnings.warn, judges)
    rows: list[dict[str, Any]] = [{"prompt": prompt} for prompt in prompts]
    for metric in metrics:
        for first in range(0, len(images), CHUNK):
            part = slice(first, first + CHUNK)
            found = scorer.measure(metric, images[part], prompts[part])
            for place, result in enumerate(found, first):
                if isinstance(result, Exception):
                    result = failure(metric, result)
                rows[place] |= result.values
                if result.note:
                    warnings.warn(f"{metric} of picture {place} {result.note}", stacklevel=2)
    return pandas.DataFrame(rows)


@dataclass(frozen=True)
class Run:
    """A run folder, open for reading.

    Attributes:
        folder: where it is.
        rows: ``results.csv``, a row a picture.
        facts: ``run.json``: identity, configuration, versions, sessions.
    """

    folder: Path
    rows: pandas.DataFrame
    facts: Mapping[str, Any]

    def image(self, row: int) -> Image:
        """The picture of a row, by its place in ``rows``.

        Raises:
            PictureError: the row has none, or its file is damaged.
        """
        from align.pictures import PictureError, saved_picture
        from align.store.inside import pictures_in

        if not -len(self.rows) <= row < len(self.rows):
            raise PictureError(f"there is no row {row} in {self.folder}: it has {len(self.rows)}")
        (path,) = pictures_in(self.folder, [str(self.rows["image"].iloc[row])])
        if not path:
            raise PictureError(f"row {row} has no picture in {self.folder}")
        return saved_picture(path)[1]


def open_run(folder: Path | str) -> Run:
    """Read a run folder, as far as the run has come.

    Raises:
        ReportError, StoreError: it is none, or damaged.
    """
    from align.analysis.arms import read_rows
    from align.store.manifest import read_run

    folder = Path(folder)
    return Run(folder, read_rows(folder), read_run(folder) or {})


def _config(
    prompts: str | Sequence[str],
    options: Sequence[str],
    method: str,
    backbone: str,
    seed: int,
    samples: int,
) -> Config:
    """The checked configuration of a call. Raises ConfigError."""
    from align.config.command import Command
    from align.config.compose import jobs_of
    from align.config.errors import ConfigError

    if not all(isinstance(option, str) for option in options):
        raise ConfigError("options: give texts one by one, such as 'sampler.steps=8'")
    texts = (
        (prompts,) if isinstance(prompts, str) else tuple(prompts) if isinstance(prompts, Iterable) else ()
    )
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigError("prompts: give a text, or a list of texts")
    asked = [f"method={method}", f"backbone={backbone}", f"seed={seed}", f"samples={samples}"]
    # Texts go beside Hydra, whose grammar has no part in them.
    given = [*asked, "metrics=none", "prompts=text", "prompts.text=[x]", *options]
    (job,) = jobs_of(Command(tuple(given)))
    return replace(job.config, prompts=replace(job.config.prompts, text=texts))


def _made(sampler: Samples, items: Sequence[Item]) -> list[Picture]:
    from align.runner.rows import to_image
    from align.sampling.sampler import Request

    wanted = [Request(item.prompt, item.negative, item.seed, item.sample) for item in items]
    return [
        Picture(
            None if one.picture is None else to_image(one.picture),
            request.prompt,
            request.seed,
            request.sample,
            asdict(one.cost),
            one.seconds,
            one.info,
            one.error,
        )
        for request, one in zip(wanted, sampler.sample(wanted), strict=True)
    ]


@contextmanager
def _torch(config: Config, ours: bool = True) -> Iterator[None]:
    """Torch set up as for a run, and afterwards as it was: it is not ours alone here.

    It only warns of what has no deterministic form on a GPU in a user's reward (not ``ours``), or in every product where
    CUDA was at work before: torch has read cuBLAS's workspace by then.
    """
    import torch
    from torch.utils import deterministic

    from align.runner.build import set_up_torch

    before = torch.get_deterministic_debug_mode(), torch.get_num_threads(), torch.backends.cudnn.benchmark
    fills = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    late = torch.cuda.is_initialized() and "CUBLAS_WORKSPACE_CONFIG" not in os.environ  # type: ignore[no-untyped-call]
    set_up_torch(config.run.threads)
    if late:
        del os.environ["CUBLAS_WORKSPACE_CONFIG"]
    if late or not ours:
        torch.set_deterministic_debug_mode("warn")
    try:
        yield
    finally:
        mode, threads, torch.backends.cudnn.benchmark = before
        torch.set_deterministic_debug_mode(mode)
        torch.set_num_threads(threads)
        deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
