"""Dependencies point one way, also those of the modules at the root, which import-linter cannot read."""

import ast
from collections.abc import Iterator

import pytest

from settings import ROOT

# Each may import what stands after it, and nothing that stands before it.
LAYERS = ["lab", "api", "monitor", "broker", "celery_app", "tasks", "services", "settings", "transport"]
# The app names the folder of its tasks, and a task names its app.
CIRCLE = {("tasks", "celery_app")}
FOLDERS = ["examples", "notebooks", "tests", "benchmarks"]


def imports_of(part: str) -> Iterator[tuple[str, str]]:
    """Give each part of this project that a file of `part` imports, with the file."""
    folder = ROOT / part
    for path in folder.rglob("*.py") if folder.is_dir() else [ROOT / f"{part}.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                yield name.partition(".")[0], str(path.relative_to(ROOT))


@pytest.mark.parametrize("part", LAYERS)
def test_nothing_imports_what_stands_above_it(part: str) -> None:
    above = {*LAYERS[: LAYERS.index(part)], *FOLDERS}
    wrong = {(name, path) for name, path in imports_of(part) if name in above and (part, name) not in CIRCLE}
    assert not wrong


def test_every_module_at_the_root_has_its_layer() -> None:
    modules = {path.stem for path in ROOT.glob("*.py")} - {
        "flowerconfig"
    }  # Flower reads it, nobody imports it
    assert modules <= set(LAYERS)
