"""Every claim of a notebook has a test, and every test of a claim is made in a notebook.

In a notebook a claim is a line of its own in a Markdown cell: `**Claim 03.2** On Redis, priority 0 is
served first.` Its test in tests/claims has the docstring `03.2 On Redis, priority 0 is served first.`
"""

import ast
import json
import re

from settings import ROOT

CLAIM = re.compile(r"^\*\*Claim (\d\d\.\d+)\*\* (.+)$", re.MULTILINE)
TESTED = re.compile(r"(\d\d\.\d+) (.+)", re.DOTALL)


def claims_made() -> dict[str, str]:
    """Return the claims of all notebooks: id and statement."""
    found: dict[str, str] = {}
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(notebook.read_text())["cells"]:
            if cell["cell_type"] == "markdown":
                for claim, statement in CLAIM.findall("".join(cell["source"])):
                    assert claim not in found, f"{claim} is made twice"
                    assert notebook.name.startswith(claim[:2]), f"{claim} does not belong to {notebook.name}"
                    found[claim] = statement.strip()
    return found


def claims_tested() -> dict[str, str]:
    """Return the claims that have a test: id and statement, from the docstrings."""
    found: dict[str, str] = {}
    for module in sorted((ROOT / "tests" / "claims").glob("test_*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                match = TESTED.match(ast.get_docstring(node) or "")
                if match:
                    assert match[1] not in found, f"{match[1]} has two tests"
                    found[match[1]] = " ".join(match[2].split())
    return found


def test_every_claim_has_a_test_and_every_test_a_claim() -> None:
    assert set(claims_made()) == set(claims_tested())


def test_the_statements_are_the_same_in_the_notebook_and_in_the_test() -> None:
    statements = claims_tested()
    assert {claim: statements.get(claim) for claim in claims_made()} == claims_made()
