"""Every claim of a notebook has a test, and every test of a claim is made in a notebook.

In a notebook a claim is a line of its own in a Markdown cell: `**Claim 03.2** On Redis, priority 0 is
served first.` Its test in tests/claims has the docstring `03.2 On Redis, priority 0 is served first.`
"""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

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


def test_a_claim_that_fails_names_its_lesson(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_claim.py").write_text('def test_it():\n    "03.9 A claim."\n    assert False\n')
    command = [
        sys.executable,
        "-m",
        "pytest",
        f"--rootdir={tmp_path}",
        "-p",
        "no:cacheprovider",
        str(tmp_path),
    ]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "Claim 03.9 is made in notebooks/03_calling_routing_priorities.ipynb" in run.stdout
