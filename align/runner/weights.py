"""Which weight files and data sets a run needs, whether they are there, and their fingerprints.  Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from align.backbones import registry as backbones
from align.checkpoints.fetch import UrlFile
from align.checkpoints.hashes import file_hash
from align.checkpoints.layout import Piece, convert_command, is_file, module_piece, weight_files
from align.checkpoints.reference import (
    HubReference,
    fetch_command,
    folder_of,
    hub_names,
    hub_reference,
    is_pattern,
    snapshot,
)
from align.config.schema import BackboneConfig, Config, MetricsConfig, PromptsConfig
from align.rewards.registry import EMBEDDED, REWARDS
from align.rewards.sources import PICKLES, Files
from align.shapes import CHECKER_VERSION
from align.store.measured import CHECKER

TRAIN_SHAPES = "python scripts/train_shapes.py"
TRAIN_VALUE = {
    "small_decoder": "python scripts/train_small_decoder.py",
    "network": "python scripts/train_value.py",
}
SMALL_DECODERS = {
    "sd15": "madebyollin/taesd",
    "lcm": "madebyollin/taesd",
    "sdxl": "madebyollin/taesdxl",
}
"""Published ones, by the backbone's family."""
_READ = (".safetensors", ".json", ".txt", ".model", *PICKLES, ".jsonl", ".csv", ".tsv", ".parquet", ".py")
"""Files that decide what a model or a user's reward computes, or which prompts there are; a model card does not."""


@dataclass(frozen=True)
class Needed:
    """Files that something needs.

    Attributes:
        what: whose they are, such as "reward shapes_pick".
        folder: where they are.
        parts: files and sub-folders of it that must be there.
        mend: the exact command that brings them.
        hub: the repository, and the folder within it, that the parts are of; ``None`` if they are not on the hub.
        urls: files that come from elsewhere on the net, to be fetched as they are.
    """

    what: str
    folder: Path
    parts: tuple[str, ...]
    mend: str
    hub: HubReference | None = None
    urls: tuple[UrlFile, ...] = ()

    def missing(self) -> list[str]:
        """Parts that are not there, or are empty folders."""
        paths = {part: self.folder / part for part in self.parts}
        return [part for part, path in paths.items() if not (path.is_file() or any(path.glob("*")))]

    def files(self) -> list[Path]:
        """The files that decide the values, sorted."""
        found = [
            path for part in self.parts for path in (self.folder / part, *(self.folder / part).rglob("*"))
        ]
        return sorted(path for path in found if path.suffix in _READ and path.is_file())

    def fingerprint(self) -> str:
        """sha256 over the names and hashes of the files; the folder's place has no part in it."""
        digest = hashlib.sha256()
        for path in self.files():
            digest.update(f"{path.relative_to(self.folder).as_posix()} {file_hash(path)}\n".encode())
        return digest.hexdigest()

    @property
    def source(self) -> str | None:
        """Repository and commit that the hub's cache holds, for the record; ``None`` for what is not from there."""
        if self.hub is None:
            return None
        return f"{self.hub.repo}@{snapshot(self.hub.repo, self.hub.revision, self.hub.kind).name}"


def hub_needed(what: str, hub: HubReference, parts: tuple[str, ...]) -> Needed:
    """Files of a repository of the hub; the command names only those that are missing."""
    folder = snapshot(hub.repo, hub.revision, hub.kind) / hub.folder
    needed = Needed(what, folder, parts, "", hub)
    names = hub_names(hub, needed.missing() or list(parts))
    return replace(needed, mend=fetch_command(hub, names))


def recipe(backbone: BackboneConfig) -> backbones.Recipe:
    """Where a backbone's modules come from."""
    return backbones.Recipe(
        weights=(backbone.weights, *backbone.alternatives),
        layout=backbone.layout,
        consistency=backbone.consistency,
        single_file=backbone.single_file,
        unet=backbone.unet,
        vae=backbone.vae,
        lora=backbone.lora,
        dtype=backbone.dtype,
        decoder_dtype=backbone.decoder_dtype,
        text_dtype=backbone.text_dtype,
    )


def backbone_files(backbone: BackboneConfig) -> list[Needed]:
    """What a backbone needs: its pipeline, then what is used instead of parts of it; an empty entry for a density."""
    if backbone.kind == "analytic":
        return [Needed(f"backbone {backbone.name}", EMBEDDED, (), "")]
    found = []
    for piece in backbones.pieces(recipe(backbone)):
        what = f"backbone {backbone.name}{'' if piece.role == 'pipeline' else f' {piece.role}'}"
        if piece.hub is not None:
            found.append(hub_needed(what, piece.hub, piece.files))
            continue
        option = f"backbone.{'weights' if piece.role == 'pipeline' else piece.role}"
        mend = f"give {option}=FOLDER, a {'folder' if piece.role == 'pipeline' else 'model'} in diffusers' layout"
        if piece.reference in backbones.EMBEDDED:
            mend = TRAIN_SHAPES
        elif is_file(piece.reference):
            mend = f"give {option}=FILE.safetensors, a file that is there"
        elif any(piece.folder.rglob("*.bin")):
            command = convert_command(piece.reference, piece.role, backbone.layout)
            mend += f"; pickles (.bin) are not read, this converts them: {command}"
        found.append(Needed(what, piece.folder, piece.files, mend))
    return found


def value_piece(config: Config) -> Piece | None:
    """Files of a run's estimate of the expected reward: a small decoder or a value network, if it has one."""
    value, backbone = config.method.value, config.backbone
    if value.estimate not in TRAIN_VALUE or not config.method.branches:
        return None
    reference = value.weights or SMALL_DECODERS.get(backbone.family)
    if reference is None:
        reference = str(EMBEDDED / {"network": "value_network"}.get(value.estimate, value.estimate))
    if value.estimate == "small_decoder":
        half = (backbone.decoder_dtype or backbone.dtype) != "float32"
        return module_piece(reference, value.estimate, half)
    folder = folder_of(reference)
    return Piece(
        value.estimate, reference, folder, ("config.json", *weight_files(folder, "model.safetensors"))
    )


def value_files(config: Config) -> list[Needed]:
    """What :func:`value_piece` needs: one entry or none."""
    piece = value_piece(config)
    if piece is None:
        return []
    what = f"method {config.method.name} {piece.role}"
    if piece.hub is not None:
        return [hub_needed(what, piece.hub, piece.files)]
    mend = TRAIN_VALUE[piece.role]
    if config.method.value.weights is not None:
        mend = f"give method.value.weights=FOLDER, with {' and '.join(piece.files)} in it"
    return [Needed(what, piece.folder, piece.files, mend)]


def backbone_fingerprint(needed: Sequence[Needed]) -> str:
    """One hash for all that :func:`backbone_files` lists."""
    if len(needed) == 1:
        return needed[0].fingerprint()
    parts = [one.fingerprint() for one in needed]
    roles = [one.what.rpartition(" ")[2] for one in needed[1:]]
    lines = [f"{role} {part}\n" for role, part in zip(["pipeline", *roles], parts, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def reward_files(name: str) -> list[Needed]:
    """What a registered reward needs, one entry for each checkpoint; an empty one for what is no model."""
    what = f"reward {name}"
    if not REWARDS[name].weights:
        return [Needed(what, EMBEDDED, (), "")]
    return [
        _reward_needed(what if k == 0 else f"{what} ({one.reference})", one)
        for k, one in enumerate(REWARDS[name].weights)
    ]


def _reward_needed(what: str, files: Files) -> Needed:
    urls = (UrlFile(files.url, files.sha256, files.target),) if files.url else ()
    hub = None if files.url else hub_reference(files.reference)
    return Needed(what, files.folder, files.chosen, files.mend, hub, urls)


def rewards_of(config: Config) -> list[str]:
    """Rewards that a run loads: those that its method uses, and metrics."""
    return list(
        dict.fromkeys([*(config.reward.terms if config.method.uses_reward else ()), *config.metrics.rewards])
    )


def reward_fingerprint(name: str) -> str:
    """Fingerprint of all files of a reward."""
    return " ".join(needed.fingerprint() for needed in reward_files(name))


def metric_fingerprints(metrics: MetricsConfig) -> dict[str, str]:
    """Fingerprint of what measures, by metric; the exact checker, which has no weights, comes last."""
    checker = {CHECKER: CHECKER_VERSION} if metrics.checker else {}
    return {name: reward_fingerprint(name) for name in metrics.rewards} | checker


def reward_record(name: str) -> dict[str, str]:
    """What tells a reward's numbers apart: facts of the registry, checkpoints, revisions, hashes of files."""
    found = dict(REWARDS[name].facts)
    for one in REWARDS[name].weights if found else ():
        found[f"revision of {one.reference}"] = one.revision
        found |= {chosen: file_hash(one.folder / chosen) for chosen in one.chosen}
    return {f"reward {name}: {key}": value for key, value in found.items()}


def dataset_files(prompts: PromptsConfig) -> list[Needed]:
    """The data set that prompts are read from, its parts in the order of ``prompts.files``: one entry or none.

    A pattern stands for the file that fits it, and for itself until that is there.
    """
    if prompts.kind != "dataset":
        return []
    reference = str(prompts.dataset)
    folder = folder_of(reference, "dataset")
    parts = tuple(part for name in prompts.files for part in _there(folder, name))
    what, hub = f"prompts {prompts.name}", hub_reference(reference, "dataset")
    if hub is not None:
        return [hub_needed(what, hub, parts)]
    return [Needed(what, folder, parts, f"give prompts.dataset=FOLDER, with {' and '.join(parts)} in it")]


def _there(folder: Path, name: str) -> list[str]:
    """The files of a folder that a name stands for, sorted; the name itself if there are none."""
    fitting = folder.glob(name) if is_pattern(name) else []
    return sorted(path.relative_to(folder).as_posix() for path in fitting) or [name]


def needed_by(config: Config) -> list[Needed]:
    """Everything a run loads: prompts, backbone, what values noisy states, rewards that its method uses, metrics."""
    return [
        *dataset_files(config.prompts),
        *backbone_files(config.backbone),
        *value_files(config),
        *(one for name in rewards_of(config) for one in reward_files(name)),
    ]


def needed_by_all(configs: Iterable[Config]) -> list[Needed]:
    """Everything that any of several runs loads, each once."""
    return list(dict.fromkeys(one for config in configs for one in needed_by(config)))


def missing_text(needed: Iterable[Needed]) -> str:
    """What is missing and what mends it, for people; empty if nothing is."""
    gone = [(one, missing) for one in needed if (missing := one.missing())]
    if not gone:
        return ""
    lines = []
    for one, missing in gone:
        if one.hub is not None and len(missing) == len(one.parts) > 1:
            lines.append(f"  {one.what}: nothing of {one.hub.repo} in {one.folder}")
        else:
            lines.append(f"  {one.what}: {', '.join(missing)} in {one.folder}")
    mends = [f"  {mend}" for mend in mending(one for one, _ in gone)]
    if any(one.hub is not None or one.urls for one, _ in gone):
        mends.append(
            "  or all that can be fetched: python -m align doctor --fetch, with the options of this command"
            " (for a table: this command with --fetch)"
        )
    return "\n".join(["align: files are missing", *lines, "to mend it:", *mends])


def mending(missing: Iterable[Needed]) -> list[str]:
    """The commands that bring what is missing, without those that another one, with the same options, contains."""
    words = {one.mend: set(one.mend.split()) for one in missing}

    def contained(mine: set[str]) -> bool:
        more = [other - mine for other in words.values() if mine < other]
        return any(not any(word.startswith("--") for word in names) for names in more)

    return [command for command, mine in words.items() if not contained(mine)]
