"""What a configuration needs of files: looked for once, and asked by all who want to know.  Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from align.backbones import registry as backbones
from align.backbones.recipe import Recipe
from align.backbones.stated import Stated
from align.checkpoints.hashes import file_hash
from align.checkpoints.layout import (
    FORMS,
    Layout,
    Piece,
    convert_command,
    is_file,
    module_piece,
    weight_files,
)
from align.checkpoints.needed import Needed, hub_needed
from align.checkpoints.reference import EMBEDDED, folder_of, hub_reference, is_pattern
from align.config.schema import BackboneConfig, Config
from align.rewards import registry as rewards
from align.runner.judges import fingerprint_of, identity_of
from align.runner.rewriting import rewriter_needed
from align.shapes import CHECKER_VERSION
from align.store.measured import CHECKER
from align.surrogates.spec import register

T = TypeVar("T")

TRAIN_SHAPES = "python scripts/train_shapes.py"
TRAIN_VALUE = {
    "small_decoder": "python scripts/train_small_decoder.py",
    "network": "python scripts/train_value.py",
}
SMALL_DECODERS = {
    "sd15": "madebyollin/taesd",
    "lcm": "madebyollin/taesd",
    "sdxl": "madebyollin/taesdxl",
    "sd3": "madebyollin/taesd3",
    "flux": "madebyollin/taef1",
}
"""Published ones, by the backbone's family."""


class Files:
    """What a checked configuration needs of files.

    A reference is looked for when something first asks, and never again: whatever is said, hashed and loaded is
    one and the same.  Where files may have come since (after a fetch), make another.  ``beside`` is of another
    run of the same command, which shares what either finds.
    """

    def __init__(self, config: Config, beside: Files | None = None) -> None:
        self.config = config
        self._found: dict[tuple[Callable[..., Any], Hashable], Any] = beside._found if beside else {}
        register(config.reward.files)  # in a worker's process too, and of a surrogate that was saved just now

    def __reduce__(self) -> tuple[type[Files], tuple[Config]]:
        """Another process, which may be on another machine, looks for itself."""
        return Files, (self.config,)

    def _once(self, find: Callable[..., T], *what: Hashable) -> T:
        if (find, what) not in self._found:
            self._found[find, what] = find(*what)
        found: T = self._found[find, what]
        return found

    @property
    def recipe(self) -> Recipe:
        return recipe(self.config.backbone)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The backbone's files by where they come from, the pipeline first; none for a density."""
        return () if self.config.backbone.kind == "analytic" else self._once(backbones.pieces, self.recipe)

    @property
    def stated(self) -> Stated:
        """What the backbone's files state, checked. Raises WrongWeights; all files have to be there."""
        return self._once(backbones.stated, self.recipe, self.pieces)

    @property
    def backbone(self) -> list[Needed]:
        """The backbone's: its pipeline, then what is used instead of parts of it; an empty entry for a density."""
        name = f"backbone {self.config.backbone.name}"
        layout = self.config.backbone.layout
        found = [self._once(_piece_needed, name, layout, piece) for piece in self.pieces]
        return found or [Needed(name, EMBEDDED["shapes"], (), "")]

    @property
    def value_piece(self) -> Piece | None:
        """Those of the estimate of the expected reward: a small decoder or a value network, if there is one."""
        value, backbone = self.config.method.value, self.config.backbone
        if value.estimate not in TRAIN_VALUE or not self.config.method.values_states:
            return None
        half = (backbone.decoder_dtype or backbone.dtype) != "float32"
        reference = value.weights or SMALL_DECODERS.get(backbone.family)
        if reference is None:
            name = {"network": "value_network"}.get(value.estimate, value.estimate)
            reference = str(EMBEDDED["shapes"] / name)
        return self._once(_value_piece, value.estimate, reference, half)

    @property
    def value(self) -> list[Needed]:
        """What ``value_piece`` needs: one entry or none."""
        piece = self.value_piece
        if piece is None:
            return []
        what = f"method {self.config.method.name} {piece.role}"
        if piece.hub is not None:
            return [hub_needed(what, piece.hub, piece.files)]
        mend = TRAIN_VALUE[piece.role]
        if self.config.method.value.weights is not None:
            mend = f"give method.value.weights=FOLDER, with {' and '.join(piece.files)} in it"
        return [Needed(what, piece.folder, piece.files, mend)]

    @property
    def rewriter(self) -> list[Needed]:
        """Those of a language model that writes prompts: two entries or none."""
        return rewriter_needed(self.config)

    @property
    def prompts(self) -> list[Needed]:
        """The data set that prompts are read from: one entry or none, see ``dataset_needed``."""
        prompts = self.config.prompts
        if prompts.kind != "dataset":
            return []
        return [self._once(_dataset_needed, prompts.name, str(prompts.dataset), prompts.files)]

    def reward(self, name: str) -> list[Needed]:
        """Those of a registered reward, one entry for each checkpoint; an empty one for what is no model."""
        return self._once(rewards.find, name) or [Needed(f"reward {name}", EMBEDDED["shapes"], (), "")]

    @property
    def guiding(self) -> list[str]:
        return list(self.config.followed)

    @property
    def scoring(self) -> list[str]:
        """Names of all rewards that a run loads: those that its method uses, and metrics."""
        return list(dict.fromkeys((*self.guiding, *self.config.metrics.rewards)))

    @property
    def measuring(self) -> list[Needed]:
        return [one for name in self.config.metrics.rewards for one in self.reward(name)]

    def all(self) -> list[Needed]:
        """Everything that a run loads: prompts and who rewrites them, backbone, what values noisy states, rewards, metrics."""
        scoring = (one for name in self.scoring for one in self.reward(name))
        return [*self.prompts, *self.rewriter, *self.backbone, *self.value, *scoring]

    def reward_fingerprint(self, name: str) -> str:
        own = fingerprint_of(name, self.config.judges)
        return " ".join([*(one.fingerprint() for one in self.reward(name)), *([own] if own else [])])

    def metric_fingerprints(self) -> dict[str, str]:
        """Of what measures, by metric; the exact checker, which has no weights, comes last."""
        metrics = self.config.metrics
        checker = {CHECKER: CHECKER_VERSION} if metrics.checker else {}
        return {name: self.reward_fingerprint(name) for name in metrics.rewards} | checker

    def record(self, needed: Sequence[Needed], scoring: Iterable[str]) -> dict[str, dict[str, str]]:
        """What ``run.json`` keeps of files, and of the rewards ``scoring``, of which the published have more to tell.

        ``fingerprints`` of every checkpoint, by what it is for; for published rewards also model, revision, version,
        preprocessing and the hash of each file; ``sources``, ``owner/name@commit`` of those that come from the hub.
        """
        prints = {one.what: one.fingerprint() for one in needed}
        for name in scoring:
            found = self.reward(name)
            facts = rewards.describe(name, found)
            said = identity_of(name, self.config.judges)
            if facts:
                facts |= {part: file_hash(one.folder / part) for one in found for part in one.parts}
            prints |= {f"reward {name}: {key}": value for key, value in {**facts, **said}.items()}
        sources = {one.what: one.source for one in needed if one.source is not None}
        return {"fingerprints": prints, "sources": sources}


def files_of(configs: Iterable[Config], beside: Files | None = None) -> list[Files]:
    """The files of each run of a command, found together."""
    found: list[Files] = []
    for config in configs:
        found.append(Files(config, found[0] if found else beside))
    return found


def needed_by_all(configs: Iterable[Config]) -> list[Needed]:
    """Everything that any of several runs loads, each once, as it is now."""
    return list(dict.fromkeys(one for files in files_of(configs) for one in files.all()))


def recipe(backbone: BackboneConfig) -> Recipe:
    """Where a backbone's modules come from."""
    same = {one.name: getattr(backbone, one.name) for one in fields(Recipe) if one.name != "weights"}
    return Recipe(weights=(backbone.weights, *backbone.alternatives), **same)


def _piece_needed(backbone: str, layout: Layout, piece: Piece) -> Needed:
    what = backbone if piece.role == "pipeline" else f"{backbone} {piece.role}"
    if piece.hub is not None:
        return hub_needed(what, piece.hub, piece.files, shards=FORMS[layout].network == "transformer")
    option = f"backbone.{'weights' if piece.role == 'pipeline' else piece.role}"
    mend = f"give {option}=FOLDER, a {'folder' if piece.role == 'pipeline' else 'model'} in diffusers' layout"
    if piece.reference in EMBEDDED:
        mend = TRAIN_SHAPES
    elif is_file(piece.reference):
        mend = f"give {option}=FILE.safetensors, a file that is there"
    elif any(piece.folder.rglob("*.bin")):
        command = convert_command(piece.reference, piece.role, layout)
        mend += f"; pickles (.bin) are not read, this converts them: {command}"
    return Needed(what, piece.folder, piece.files, mend)


def _value_piece(role: str, reference: str, half: bool) -> Piece:
    if role == "small_decoder":
        return module_piece(reference, role, half)
    folder = folder_of(reference)
    return Piece(role, reference, folder, ("config.json", *weight_files(folder, "model.safetensors")))


def _dataset_needed(name: str, reference: str, files: tuple[str, ...]) -> Needed:
    """Files of a data set, in the order of ``prompts.files``.

    A pattern stands for the file that fits it, and for itself until that is there.
    """
    folder = folder_of(reference, "dataset")
    parts = tuple(part for file in files for part in _there(folder, file))
    what, hub = f"prompts {name}", hub_reference(reference, "dataset")
    if hub is not None:
        return hub_needed(what, hub, parts)
    return Needed(what, folder, parts, f"give prompts.dataset=FOLDER, with {' and '.join(parts)} in it")


def _there(folder: Path, name: str) -> list[str]:
    fitting = folder.glob(name) if is_pattern(name) else []
    return sorted(path.relative_to(folder).as_posix() for path in fitting) or [name]
