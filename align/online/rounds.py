"""The rounds of an experiment as configurations of ordinary runs.

One is as the release has it (arXiv 2402.16359 with DAS's frozen model): plain pictures, then in each round pictures by a method
that follows the optimistic surrogate of all that was asked before.  Prompts are taken in turn, each pass over them in an order of
its own, instead of being drawn with replacement: a prompt that is asked about again tells its pictures apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from align.config.convert import shown
from align.config.errors import ConfigError, suggestion
from align.config.method import MethodConfig
from align.config.online import RoundsConfig, SurrogateConfig
from align.config.schema import Config, MetricsConfig, PromptsConfig, RewardConfig
from align.rewards.features import FEATURES
from align.sampling.noise import NoiseStream

DATA = "data.safetensors"
SURROGATE = "surrogate.safetensors"
PLAIN = MethodConfig("none")


@dataclass(frozen=True)
class Online:
    """An experiment: the configuration that it was started with, complete, and its prompts."""

    config: Config
    surrogate: SurrogateConfig
    rounds: RoundsConfig
    blackbox: str
    prompts: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return Path(str(self.config.run.folder))

    @property
    def asked(self) -> tuple[str, ...]:
        """The prompts that rounds ask about."""
        return self.prompts[: len(self.prompts) - self.rounds.held_out]

    @property
    def evaluated(self) -> tuple[str, ...]:
        return self.prompts[-self.rounds.held_out :] if self.rounds.held_out else self.prompts

    def noise(self, key: str, sample: int = 0) -> NoiseStream:
        """Draws of the experiment itself, apart from those of its pictures."""
        return NoiseStream(self.config.seed, key, sample)

    def answer(self, key: str, value: float) -> float:
        """What the black box answers for the picture of this identity: its value, with noise of the picture's own."""
        return value + self.rounds.noise * float(self.noise(key).normal("feedback", 0, 0, (1,)))

    def folder_of(self, round_: int) -> Path:
        return self.folder / f"round_{round_:03d}"

    def pictures(self, round_: int) -> int:
        return self.rounds.each if round_ else self.rounds.first

    def round(self, round_: int, reward: RewardConfig | None) -> Config:
        """The run of a round, guided by a reward, or plain."""
        before = 0 if round_ == 0 else self.rounds.first + (round_ - 1) * self.rounds.each
        samples, noise = self.config.samples, self.noise("prompts")
        texts = in_turn(self.asked, before // samples, self.pictures(round_) // samples, noise, self.rounds)
        return self._run(self.folder_of(round_), texts, reward, seed=self._seed(f"round {round_}"))

    def evaluation(self, reward: RewardConfig | None) -> Config:
        """The run of the evaluation's pictures, by a reward, or plain; both have the same prompts and noise."""
        told = replace(self.rounds, template_share=0.0)
        texts = in_turn(self.evaluated, 0, self.rounds.evaluation, self.noise("evaluation"), told)
        arm = "surrogate" if reward else "plain"
        folder = self.folder / "evaluation" / arm
        return replace(self._run(folder, texts, reward, seed=self._seed("evaluation")), samples=1)

    def beside(self) -> Config:
        """The run of plain pictures that are asked about as often as those of all rounds, each prompt as often."""
        asked = self.rounds.first + self.rounds.number * self.rounds.each
        config = self._run(self.folder / "best_of_n", self.asked, None, seed=self._seed("best of n"))
        return replace(config, samples=max(1, asked // len(self.asked)))

    def _run(self, folder: Path, texts: Sequence[str], reward: RewardConfig | None, seed: int) -> Config:
        config = self.config
        metrics = config.metrics
        if self.blackbox not in metrics.rewards:
            metrics = MetricsConfig(metrics.name, (self.blackbox, *metrics.rewards), metrics.checker)
        return replace(
            config,
            prompts=PromptsConfig(config.prompts.name, text=tuple(texts)),
            seed=seed,
            method=config.method if reward else PLAIN,
            reward=reward or config.reward,
            metrics=metrics,
            run=replace(config.run, folder=str(folder)),
            surrogate=None,
            rounds=None,
            table=None,
        )

    def _seed(self, what: str) -> int:
        """Of the noise of a run's pictures: rounds that ask about a prompt again see other pictures of it."""
        return int(self.noise(what).uniform("seed", 0, 0, (1,)).item() * 2**31)


def in_turn(
    prompts: Sequence[str], before: int, number: int, noise: NoiseStream, rounds: RoundsConfig
) -> list[str]:
    """The next ``number`` prompts after ``before`` of an endless turn, some of them inside the template."""
    texts = []
    for place in range(before, before + number):
        turn, within = divmod(place, len(prompts))
        order = noise.uniform("turn", turn, 0, (len(prompts),)).argsort().tolist()
        text = prompts[order[within]]
        inside = float(noise.uniform("template", place, 0, (1,))) < rounds.template_share
        texts.append(rounds.template.replace("{}", text) if inside else text)
    return texts


def guiding(path: Path, digest: str) -> RewardConfig:
    """What a saved surrogate, of this sha256, guides by: named by it, so that equal names are equal surrogates."""
    name = f"surrogate_{digest[:8]}"
    return RewardConfig(name, {name: 1.0}, files={name: str(path.resolve())})


_OF_KIND = {
    "ridge": ("a", "ridge", "limit"),
    "ucb": ("a", "ridge", "limit", "bonus"),
    "bootstrap": ("heads",),
    "greedy": (),
}
"""What the options of a bonus, and those of several networks, are read by."""
_OF_NETWORKS = ("widths", "epochs", "batch", "rate", "held_out", "gradient_noise", "released")


def check(online: Online) -> None:
    """Refuse numbers that do not go together, and options that nothing reads. Raises ConfigError."""
    rounds, surrogate, samples = online.rounds, online.surrogate, online.config.samples
    for name in ("first", "each"):
        if getattr(rounds, name) % samples:
            raise ConfigError(
                f"rounds.{name}={getattr(rounds, name)} is no multiple of samples={samples}, the pictures of a prompt in a round: "
                "give a multiple"
            )
    if rounds.held_out >= len(online.prompts):
        raise ConfigError(
            f"rounds.held_out={rounds.held_out} of {len(online.prompts)} prompts leaves none to ask about: give fewer"
        )
    if "{}" not in rounds.template:
        raise ConfigError(
            f"rounds.template={shown(rounds.template)} has no {{}}, where the prompt goes: put it in"
        )
    if surrogate.features not in FEATURES:
        hint = suggestion(surrogate.features, FEATURES, "features")
        raise ConfigError(f"surrogate.features={surrogate.features}: there are no such features{hint}")
    usual = SurrogateConfig(surrogate.name)
    read = {*_OF_KIND[surrogate.kind], *(() if surrogate.kind == "ridge" else _OF_NETWORKS)}
    for name in {*_OF_NETWORKS, *(one for names in _OF_KIND.values() for one in names)} - read:
        if getattr(surrogate, name) != getattr(usual, name):
            raise ConfigError(
                f"surrogate.{name} is not read by surrogate.kind={surrogate.kind}: leave it out, or give another surrogate"
            )
    if surrogate.kind == "ucb" and surrogate.ridge is None:
        raise ConfigError(
            "surrogate.ridge=null is chosen by surrogate.kind=ridge alone: give a number such as 1e-3"
        )
