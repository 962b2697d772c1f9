"""Items: what a run makes, and the identity that makes each of them one and the same picture.

An item's key is the sha256 of everything that decides its picture: resolved method, backbone with its
weights, the reward and the source of semantic graphs if the method uses them, process, negative prompt; prompt;
seed; sample.  A row of a prompt file may have its own negative prompt and seed.  Nothing else has a part in it: not
order, tags, batch size, device, folder, metrics, a job number or the time.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from align.config.convert import plain
from align.config.guider import GuiderConfig
from align.config.method import STRATEGIES, MethodConfig
from align.config.sampler import SamplerConfig
from align.config.schema import BackboneConfig, Config, RewardConfig
from align.runner.prompt_files import PromptRow

if TYPE_CHECKING:
    from align.sampling.sampler import Request

FORMAT = 1
"""Raised when the same configuration comes to mean another picture."""


_USUAL = {one.name: one.default for one in fields(GuiderConfig) if one.name != "name"}
"""What a guider's options are unless they count."""


@dataclass(frozen=True)
class Item:
    """One picture to make; ``key`` is its identity, 64 hex digits, in which ``index``, its place in the plan,
    has no part, nor tags.

    ``seed`` is the run's, or the prompt's own; ``sample`` the number among the pictures of this prompt and
    seed: a prompt that is listed again goes on counting.
    """

    key: str
    prompt: str
    negative: str
    seed: int
    sample: int
    index: int
    tags: Mapping[str, str] = field(default_factory=dict)


def identity(
    config: Config,
    backbone_weights: str,
    reward_weights: Mapping[str, str],
    graphs: Mapping[str, Any] | None = None,
    value_weights: str | None = None,
    words: str | None = None,
    rewriting: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All that decides the pictures of a run, prompts and seeds aside, as plain values.

    ``graphs`` is what decides the prompts' graphs (see ``graph_identity``), ``rewriting`` who rewrites the prompts (see
    ``rewrite_identity``), the rest are fingerprints of files.
    """
    backbone, sampler, method = plain(config.backbone), plain(config.sampler), plain(config.method)
    # Labels, places, how it is computed, and the default that ``sampler.guidance_scale`` has taken over already.
    places = ("weights", "alternatives", "single_file", "unet", "transformer", "vae", "lora", "lora_required")
    # ``process`` and ``consistency`` are what the sampler's kind says, ``guidance`` what the files say.
    said = ("process", "consistency", "guidance")
    # A UNet does not say that it was distilled to do without the negative half.
    alone = (
        {"guidance": "none"} if config.backbone.kind == "unet" and config.backbone.guidance == "none" else {}
    )
    for name in (
        "name",
        "family",
        "trained_for",
        *said,
        *places,
        "checkpointing",
        "offload",
        "guidance_scale",
    ):
        del backbone[name]
    # So that models keep the keys that they had before there were these options.
    for group, kind in ((backbone, BackboneConfig), (sampler, SamplerConfig)):
        for one in fields(kind):
            if one.name in _LATER and group[one.name] == one.default:
                del group[one.name]
    del sampler["name"]
    # What other samplers do not read, and older keys do not have.
    unread: tuple[str, ...] = () if sampler["kernel"] == "vp" else ("coefficient", "norm", "grid")
    kind = sampler["kind"]
    unread += () if kind == "flow" else ("phases",) if kind == "few" else ("kernel", "phases")
    unread += () if kind == "few" else ("timesteps", "start")
    unread += () if kind == "glass" else ("rho", "inner")
    for name in unread:
        del sampler[name]
    method["value"]["weights"] = value_weights
    method["prompt_search"]["words"] = words
    method["prompt_rewrite"] = {"keep": method["prompt_rewrite"]["keep"], **(rewriting or {})}
    method["quirks"].sort()
    for section, option in _LATER_OF_METHODS:
        given, usual = (getattr(getattr(one, section), option) for one in (config.method, _USUAL_METHOD))
        if given == usual:
            del method[section][option]
    if not config.method.rolls:
        del method["rollover"]
    if not config.method.backtracks:
        del method["backtracking"]
    for name in STRATEGIES:
        if name not in config.method.strategies:
            del method[name]
    # What lambda comes to counts, however it is said.
    ladder = method["tempering"]
    if ladder.pop("full_at") is not None and ladder["gamma"] is None:
        ladder["gamma"] = config.method.tempering.growth(config.sampler.steps)
    reward = _judges(config.reward, reward_weights) if config.method.uses_reward else None
    del method["guide_reward"]
    guides = {} if config.guide is None else {"guide_reward": _judges(config.guide, reward_weights)}
    semantics = {} if graphs is None else {"semantics": dict(graphs)}
    guider = {name: value for name, value in plain(config.guider).items() if value != _USUAL.get(name, value)}
    return {
        "format": FORMAT,
        "backbone": {**backbone, **alone, "files": backbone_weights},
        "sampler": sampler,
        "method": method,
        "reward": reward,
        **guides,
        "negative": config.negative,
        **semantics,
        **({"guider": guider} if guider else {}),
    }


def _judges(reward: RewardConfig, weights: Mapping[str, str]) -> dict[str, Any]:
    more = {} if reward.shorter is None else {"dtype": reward.shorter}
    more |= {} if reward.combine == "sum" else {"combine": reward.combine}
    return {
        name: {"weight": weight, "files": weights[name]} | more
        for name, weight in sorted(reward.terms.items())
    }


_LATER = (
    *("density", "compile", "t5", "max_sequence_length", "attention_blocks", "attention_maps"),
    *("storage", "attention", "true_scale"),
)


_USUAL_METHOD = MethodConfig("none")
_LATER_OF_METHODS = (
    ("steering", "growth"),
    *(("search", option) for option in ("until", "threshold", "at", "keep")),
    *(("draft", option) for option in ("skip", "stack", "cache", "warmup", "interval", "last", "order")),
    *(("value", "steps"), ("guidance", "whiten"), ("noise_gradient", "project")),
)
"""Likewise of methods, by section."""


class Keys:
    """Keys of many items of one identity, which is written out once for all of them.

    The sha256 of a JSON object of ``identity``, ``prompt``, ``sample`` and ``seed``, sorted, in ASCII: any text has
    one.
    """

    def __init__(self, what: Mapping[str, Any]) -> None:
        self._began = hashlib.sha256(b'{"identity":' + _json(what))

    def key(self, prompt: str, seed: int, sample: int) -> str:
        digest = self._began.copy()
        digest.update(b"," + _json({"prompt": prompt, "sample": sample, "seed": seed})[1:])
        return digest.hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(
        value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False
    ).encode("ascii")


def make_plan(
    what: Mapping[str, Any],
    rows: Sequence[PromptRow],
    seed: int,
    samples: int,
    negative: str,
    whole: Sequence[PromptRow] = (),
    *,
    metadata: bool = False,
) -> list[Item]:
    """The items of a run, in the order of its prompts.

    Occurrence k of a prompt with one seed (from 0) has the samples k * samples to (k + 1) * samples - 1, so
    duplicates get pictures of their own, and no two items share prompt, seed and sample.  A row's own negative
    prompt makes the item that the same negative prompt of a run makes.

    ``metadata``: the rows' tags decide pictures too, because what guides reads them.

    ``seed`` and ``negative`` are for rows that have none of their own.  Where rows of the ``whole`` set differ
    in their negatives, occurrences are counted in it, so that a row's pictures are the same in any order and
    part.
    """
    occurrence = _occurrences(rows, seed)
    if any(row.negative is not None for row in whole):
        places = {id(row): number for row, number in zip(whole, _occurrences(whole, seed), strict=True)}
        occurrence = [places[id(row)] for row in rows]
    keys: dict[tuple[str, tuple[tuple[str, str], ...]], Keys] = {}
    items: list[Item] = []
    for row, turn in zip(rows, occurrence, strict=True):
        own = negative if row.negative is None else row.negative
        known = tuple(sorted(row.tags.items())) if metadata else ()
        if (own, known) not in keys:
            more = {"metadata": dict(known)} if known else {}
            keys[own, known] = Keys(({**what, "negative": own} if own != negative else {**what}) | more)
        number = seed if row.seed is None else row.seed
        for sample in range(turn * samples, (turn + 1) * samples):
            key = keys[own, known].key(row.text, number, sample)
            items.append(Item(key, row.text, own, number, sample, len(items), row.tags))
    return items


def _occurrences(rows: Sequence[PromptRow], seed: int) -> list[int]:
    """For each row, how many before it have its prompt and seed."""
    seen: Counter[tuple[str, int]] = Counter()
    found: list[int] = []
    for row in rows:
        same = (row.text, seed if row.seed is None else row.seed)
        found.append(seen[same])
        seen[same] += 1
    return found


def group_of(one: Item | Request, returned: int) -> tuple[str, str, int, int]:
    """What the pictures of one group of particles, of which ``returned`` become pictures, have in common."""
    return one.prompt, one.negative, one.seed, one.sample // returned
