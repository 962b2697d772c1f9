"""Where the configs are: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

import yaml

from align.reading import read_text

PACKAGE = Path(__file__).resolve().parent.parent


def conf_folder() -> Path:
    """The folder of the config groups."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


def config_folders(more: Path | None = None) -> list[Path]:
    """Ours, and the user's own folder of groups if there is one."""
    return [conf_folder(), *([more] if more else [])]


def group_choices(group: str, more: Path | None = None) -> list[str]:
    """Names in a config group, sorted; ``more`` is the user's own folder of groups."""
    folders = config_folders(more)
    return sorted(
        {path.stem for folder in folders for path in (folder / group).glob("*.yaml") if path.is_file()}
    )


def default_choices() -> dict[str, str]:
    """The choice of each group that ``config.yaml`` makes."""
    content = yaml.safe_load((conf_folder() / "config.yaml").read_text(encoding="utf-8"))
    pairs = [next(iter(entry.items())) for entry in content["defaults"] if isinstance(entry, dict)]
    return {str(group): str(choice) for group, choice in pairs if choice is not None and " " not in group}


def config_file(group: str, name: str, more: Path | None = None) -> Path | None:
    """The file of a choice, as Hydra finds it: ours before the user's; None if there is none."""
    paths = [folder / group / f"{name}.yaml" for folder in config_folders(more)]
    return next((path for path in paths if path.is_file()), None)


def summary_line(group: str, name: str, more: Path | None = None) -> str:
    """The first line of a config's header comment, Hydra's package directive aside."""
    path = config_file(group, name, more)
    try:
        lines = read_text(path).splitlines() if path else []
    except (OSError, UnicodeDecodeError):
        return ""  # which is told when it is chosen
    comments = [line.lstrip("# ").strip() for line in lines if line.startswith("#")]
    return next((line for line in comments if not line.startswith("@package")), "")
