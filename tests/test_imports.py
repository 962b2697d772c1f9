"""Imports point down the list that CONTRIBUTING prints, in no circle; what promises to be light imports nothing heavy.

Every import counts, also those inside functions and for types alone: whoever reads a file has to know what they name.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "open_clip",
    "peft",
    "pandas",
    "matplotlib",
    "hydra",
}
LIGHT = (
    "align.__main__",
    "align.commands",
    "align.checkpoints.reference",
    "align.checkpoints.needed",
    "align.errors",
)
"""Imported before a mistyped option is told."""


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for top in ("align", "scripts") for path in sorted((ROOT / top).rglob("*.py"))}


@cache
def tree(module):
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


@cache
def imported(module, late=True):
    """The modules that a file names in imports; without ``late`` only those that run when it is imported."""
    found = set()
    nodes = ast.walk(tree(module)) if late else _run_at_once(tree(module).body)
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in inside if name in FILES} or {node.module}
    return found - {module}


def _run_at_once(body):
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        yield from _run_at_once(
            [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        )


def ours(module, late=True):
    return {name for name in imported(module, late) if name in FILES}


def reached(start, late=True):
    """All modules of ours that importing some brings about, by the way there; packages bring their ``__init__``."""
    ways = {module: (module,) for module in start}
    queue = list(ways)
    while queue:
        module = queue.pop()
        parents = {module.rpartition(".")[0]} & FILES.keys() - {
            "align"
        }  # whose names are looked up when asked for
        for name in ours(module, late) | parents:
            if name not in ways:
                ways[name] = (*ways[module], name)
                queue.append(name)
    return ways


def order():
    """The places of CONTRIBUTING's list, from the top down."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = text.split("## Where things go")[1].split("Imports point down")[0]
    lines = re.findall(r"^    align/(\S+)", block, re.MULTILINE)
    return [name for line in lines for name in re.sub(r"[{}]", "", line).split(",")]


def place_of(module):
    return module.split(".")[1] if "." in module else "__init__"


def test_the_list_names_what_there_is_and_nothing_else():
    there = {place_of(module) for module in FILES if module.startswith("align")} - {"__init__"}
    assert set(order()) == there
    assert len(order()) == len(there)


@pytest.mark.parametrize("place", order())
def test_imports_point_down_the_list(place):
    below = {"__init__", place, *order()[order().index(place) :]}
    wrong = {
        f"{module} imports {name}"
        for module in FILES
        if module.startswith("align") and place_of(module) == place
        for name in ours(module)
        if not (name.startswith("align") and place_of(name) in below)
    }
    assert not wrong


def test_no_circle_of_files():
    left = {module: ours(module) for module in FILES}
    # What leads nowhere that is left, or is led to from nowhere, is in no circle.
    while ends := {
        module
        for module, names in left.items()
        if not names & left.keys() or not any(module in others for others in left.values())
    }:
        left = {module: names for module, names in left.items() if module not in ends}
    assert not left, {module: sorted(names & left.keys()) for module, names in left.items()}


@pytest.mark.parametrize("package", ["store", "analysis", "pages"])
def test_what_reads_results_knows_no_torch(package):
    ways = reached([module for module in FILES if module.startswith(f"align.{package}")])
    wrong = {
        way for module, way in ways.items() if "torch" in {name.split(".")[0] for name in imported(module)}
    }
    assert not wrong


def test_a_mistyped_option_waits_for_nothing_heavy():
    ways = reached([module for module in FILES if module.startswith(LIGHT)], late=False)
    wrong = {
        (*way, name)
        for module, way in ways.items()
        for name in imported(module, False)
        if name.split(".")[0] in HEAVY
    }
    assert not wrong


def test_nothing_but_its_loaders_imports_models_to_look_for_files():
    ways = reached(["align.runner.prepare", "align.config.compose"], late=False)
    models = HEAVY - {"hydra"}
    wrong = {
        (*way, name)
        for module, way in ways.items()
        for name in imported(module, False)
        if name.split(".")[0] in models
    }
    assert not wrong


def walk():
    """Files and functions of the stranger's walk in CONTRIBUTING."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = text.split("## From a name to the gradient")[1].split("\n## ")[0]
    return re.findall(r"^\d\. `([^`]+)`(?:, `([^`]+)`)?", block, re.MULTILINE)


def test_the_way_from_a_method_to_its_gradient_takes_five_files():
    assert 3 <= len({path for path, _ in walk()}) <= 5
    for path, name in walk():
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not name or re.search(rf"^\s*(def|class) {name}\b", text, re.MULTILINE), (path, name)
