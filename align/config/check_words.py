"""What draws with other words than the user's, against the rest of a configuration."""

from __future__ import annotations

from align.config.errors import ConfigError
from align.config.schema import Config


def check_words(config: Config, section: str) -> None:
    """Refuse what cannot be drawn with other words, and who writes them but cannot be asked. Raises ConfigError."""
    method, rewrite = config.method, config.method.prompt_rewrite
    if not (method.prompt_search.budget or rewrite.by):
        return
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
        raise ConfigError(
            "method.prompt_rewrite.by=model needs a language model: give method.prompt_rewrite.model=FOLDER"
        )
