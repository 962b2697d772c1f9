"""A reward that is one function of pictures and prompts."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from align.rewards.base import Reward, check_pairing, one_a_picture
from align.rewards.errors import RewardError
from align.startup import tolerant


class FunctionReward(Reward):
    """What a function (see ``align.rewards.plugins.reward``) says of each picture."""

    foreign = True

    def __init__(
        self, name: str, function: Callable[..., Any], differentiable: bool, fingerprint: dict[str, str]
    ) -> None:
        self.name, self.function, self.differentiable = name, function, differentiable
        self.fingerprint = fingerprint

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        """See ``Reward.score``; also raises ValueError for values that lack the gradient that is promised."""
        check_pairing(pictures, prompts, step)
        try:
            with tolerant():
                found = self.function(pictures, list(prompts))
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:  # exit(), or a panic of a library that is not written in Python
            if _of_a_signal(error):
                raise
            what = f"called exit({error.code})" if isinstance(error, SystemExit) else f"ended with {error!r}"
            raise RewardError(f"reward {self.name} {what}: raise an error instead") from error
        values = one_a_picture(self.name, found, len(pictures), pictures.device)
        asked = self.differentiable and pictures.requires_grad and torch.is_grad_enabled()
        if asked and not values.requires_grad:
            raise ValueError(f"reward {self.name} has no gradient: write @reward(differentiable=False)")
        return values


def _of_a_signal(error: BaseException) -> bool:
    """Whether a handler of signals raised it, which interrupts whatever is at work: submitit ends a preempted job so."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = [getattr(getattr(one, "__func__", one), "__code__", None) for one in handlers if callable(one)]
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))
