"""What wraps whole samplings, against the rest of a configuration."""

from __future__ import annotations

from align.config.errors import ConfigError
from align.config.method import STRATEGIES
from align.config.schema import Config


def check_strategy(config: Config) -> None:
    """Refuse two strategies at once, and what they cannot wrap. Raises ConfigError."""
    method = config.method
    if not method.strategies:
        return
    if len(method.strategies) > 1:
        one, two = (f"method.{name}.{STRATEGIES[name]}" for name in method.strategies[:2])
        raise ConfigError(
            f"{one} and {two} are two strategies, of which one can wrap the samplings: turn one of them off"
        )
    section = f"method.{method.strategies[0]}"
    for name in ("particles", "returned"):
        if getattr(method, name) != 1:
            raise ConfigError(
                f"method.{name}={getattr(method, name)}: {section} makes whole samplings of one particle each: give method.{name}=1"
            )
    if method.choose != "first":
        raise ConfigError(
            f"method.choose={method.choose}: {section} keeps the best picture ever seen by itself: give method.choose=first"
        )
    if method.branches:
        raise ConfigError(
            f"{section} wraps samplings of one particle without a search: leave out method.search, rollover, steering and tempering"
        )
    if method.strategies[0] in ("prompt_search", "prompt_rewrite"):
        _words(config, section)


def _words(config: Config, section: str) -> None:
    method, rewrite = config.method, config.method.prompt_rewrite
    if config.backbone.kind == "analytic":
        raise ConfigError(
            f"{section} changes words, which backbone={config.backbone.name} does not read: give a backbone that does"
        )
    if method.guided:
        raise ConfigError(
            f"{section} draws with other words than the user's, and guidance would follow these: "
            "give method.guidance.rule=none and method.clean.rule=none"
        )
    if rewrite.by == "chat" and config.semantics.source != "llm":
        raise ConfigError(
            "method.prompt_rewrite.by=chat asks the model of semantics=llm: give semantics=llm with "
            "semantics.endpoint=URL and semantics.model=NAME, or with semantics.local=FOLDER"
        )
    if rewrite.by == "model" and not rewrite.model:
        raise ConfigError("method.prompt_rewrite.by=model needs one: give method.prompt_rewrite.model=FOLDER")
    for name in ("model", "tokenizer"):
        if rewrite.by != "model" and getattr(rewrite, name):
            raise ConfigError(
                f"method.prompt_rewrite.{name} is not read by method.prompt_rewrite.by={rewrite.by or 'null'}: leave it out"
            )
