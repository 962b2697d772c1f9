"""Each reward of a run is tried once on grey pictures, so that one that always fails costs no sampling."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NoReturn

from align.config.schema import Config
from align.errors import WeightsError
from align.rewards.errors import CannotJudge
from align.rewards.metadata import metadata_of
from align.rewards.registry import REWARDS
from align.runner import build
from align.runner.failures import CannotGoOn, DeviceLost, ErrorLog, device_lost, said
from align.runner.measure import Measurable
from align.runner.score import CHUNK, Scorer

if TYPE_CHECKING:
    import torch

    from align.rewards.base import Reward


def try_rewards(
    config: Config, scorer: Scorer, items: Collection[Measurable], device: torch.device, errors: ErrorLog
) -> None:
    """Judge grey pictures with what guides or selects and with every metric. Raises CannotGoOn, DeviceLost, WeightsError.

    A prompt that a reward cannot read is no reason to stop: only a reward that fails on all of the first prompts.
    """
    from PIL import Image as images

    known = {item.prompt: metadata_of(item.tags) for item in items}
    some = list(known)[:CHUNK]
    scorer.known = known
    if config.method.uses_reward:
        name, wrong = config.reward_label, list[Exception]()
        back = config.method.reward_needs_gradient
        for prompt in some:
            try:
                for one in filter(None, (config.reward, config.guide)):
                    reward = build.build_reward(one, device, config.judges)
                    if any(REWARDS[term].reads_metadata for term in one.terms):
                        reward.know(known)  # each is loaded once: those that guide are the same
                    gradient = back and one == (config.guide or config.reward)
                    judge(reward, prompt, config, device, gradient=gradient)
                break
            except WeightsError:
                raise
            except CannotJudge as error:
                _stop(name, error, errors)
            except Exception as error:
                if device_lost(error):
                    raise DeviceLost(said(error)) from error
                wrong.append(error)
        if len(wrong) == len(some):
            _stop(name, wrong[0], errors)
    grey = images.new("RGB", (config.backbone.width, config.backbone.height), (128, 128, 128))
    for name in config.metrics.rewards:
        if name in scorer.waiting:
            continue
        found = scorer.measure(name, [grey] * len(some), some)
        wrong = [one for one in found if isinstance(one, Exception)]
        if scorer.hopeless is not None or len(wrong) == len(some):
            _stop(name, wrong[0], errors)


def judge(reward: Reward, prompt: str, config: Config, device: torch.device, *, gradient: bool) -> None:
    """Score grey pictures for a prompt; raises whatever the reward raises."""
    import torch

    grey = torch.full((2, 3, config.backbone.height, config.backbone.width), 0.5, device=device)
    with torch.no_grad():  # two, so that one number for all of them shows
        reward.score(grey, [prompt] * 2)
    if gradient:
        with torch.enable_grad():
            reward.score(grey[:1].requires_grad_(), [prompt])


def _stop(name: str, error: Exception, errors: ErrorLog) -> NoReturn:
    errors.keep(f"trying reward {name} on a grey picture", error)
    raise CannotGoOn(
        f"reward {name} fails on a grey picture ({said(error)}), so nothing was sampled: mend it or leave it out, and "
        f"the same command goes on; the traceback is in {errors.path}"
    )
