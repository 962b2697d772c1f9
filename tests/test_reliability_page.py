"""The page of faults names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = [line for line in (ROOT / "docs" / "reliability.md").read_text().splitlines() if line.startswith("|")]
CASES = {line.split("|")[1].strip(): line for line in TABLE[2:]}


def test_the_page_lists_all_faults():
    assert len(CASES) >= 21


@pytest.mark.parametrize("case", CASES)
def test_every_test_that_it_names_exists(case):
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", CASES[case])
    assert named, "no test"
    for file, test in named:
        functions = [
            node.name
            for node in ast.parse((ROOT / file).read_text()).body
            if isinstance(node, ast.FunctionDef)
        ]
        assert test in functions, f"{file} has no {test}"
