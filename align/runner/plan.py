"""Items: what a run makes, and the identity that makes each of them one and the same picture.

An item's key is the sha256 of everything that decides its picture: resolved method, backbone with its
weights, the reward and the source of semantic graphs if the method uses them, process, negative prompt; prompt;
seed; sample.  Nothing else has a part in it: not order, batch size, device, folder, metrics, a job number or the time.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.config.convert import plain
from align.config.schema import Config

FORMAT = 1
"""Raised when the same configuration comes to mean another picture."""


@dataclass(frozen=True)
class Item:
    """One picture to make.

    Attributes:
        key: its identity, 64 hex digits.
        prompt, negative: texts.
        seed: of the run.
        sample: number among the pictures of this prompt; a prompt that is listed again goes on counting.
        index: place in the plan.
    """

    key: str
    prompt: str
    negative: str
    seed: int
    sample: int
    index: int


def identity(
    config: Config,
    backbone_weights: str,
    reward_weights: Mapping[str, str],
    graphs: Mapping[str, Any] | None = None,
    value_weights: str | None = None,
) -> dict[str, Any]:
    """All that decides the pictures of a run, prompts and seeds aside, as plain values.

    Args:
        config: the run.
        backbone_weights: fingerprint of the backbone's files.
        reward_weights: fingerprint of each reward's files, by name.
        graphs: what decides the prompts' graphs (see ``graph_identity``), if anything reads them.
        value_weights: fingerprint of the files that estimate expected rewards, if there are any.
    """
    backbone, sampler, method = plain(config.backbone), plain(config.sampler), plain(config.method)
    # Labels, places, how it is computed, and the default that ``sampler.guidance_scale`` has taken over already.
    places = ("weights", "alternatives", "unet", "vae", "lora", "lora_required")
    # ``consistency`` is what the sampler's kind says.
    for name in ("name", "family", "consistency", *places, "checkpointing", "guidance_scale"):
        del backbone[name]
    if (
        backbone["density"] is None
    ):  # so that models with weights keep the keys that they had before there were densities
        del backbone["density"]
    del sampler["name"]
    method["value"]["weights"] = value_weights
    # What lambda comes to counts, however it is said.
    ladder = method["tempering"]
    if ladder.pop("full_at") is not None and ladder["gamma"] is None:
        ladder["gamma"] = config.method.tempering.growth(config.sampler.steps)
    reward = None
    if config.method.uses_reward:
        terms = sorted(config.reward.terms.items())
        reward = {name: {"weight": weight, "files": reward_weights[name]} for name, weight in terms}
    semantics = {} if graphs is None else {"semantics": dict(graphs)}
    return {
        "format": FORMAT,
        "backbone": {**backbone, "files": backbone_weights},
        "sampler": sampler,
        "method": method,
        "reward": reward,
        "negative": config.negative,
        **semantics,
    }


def item_key(what: Mapping[str, Any], prompt: str, seed: int, sample: int) -> str:
    """The key of an item, 64 hex digits; JSON in pure ASCII, so that any text has one."""
    return Keys(what).key(prompt, seed, sample)


class Keys:
    """Keys of many items of one identity, which is written out once for all of them.

    A key is the sha256 of the JSON object of ``identity``, ``prompt``, ``sample`` and ``seed``, in this (sorted) order.
    """

    def __init__(self, what: Mapping[str, Any]) -> None:
        self._began = hashlib.sha256(b'{"identity":' + _json(what))

    def key(self, prompt: str, seed: int, sample: int) -> str:
        """Of one item, 64 hex digits."""
        digest = self._began.copy()
        digest.update(b"," + _json({"prompt": prompt, "sample": sample, "seed": seed})[1:])
        return digest.hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(
        value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False
    ).encode("ascii")


def make_plan(
    what: Mapping[str, Any], prompts: Sequence[str], seed: int, samples: int, negative: str
) -> list[Item]:
    """The items of a run, in the order of its prompts.

    Occurrence k of a prompt (from 0) has the samples k * samples to (k + 1) * samples - 1, so duplicates
    get pictures of their own.
    """
    keys = Keys(what)
    seen: Counter[str] = Counter()
    items: list[Item] = []
    for prompt in prompts:
        first = seen[prompt] * samples
        seen[prompt] += 1
        for sample in range(first, first + samples):
            key = keys.key(prompt, seed, sample)
            items.append(Item(key, prompt, negative, seed, sample, len(items)))
    return items


def same_group(one: Item, other: Item, returned: int) -> bool:
    """Whether two items are pictures of one group of particles, of which ``returned`` become pictures."""
    return (one.prompt, one.seed, one.sample // returned) == (
        other.prompt,
        other.seed,
        other.sample // returned,
    )
