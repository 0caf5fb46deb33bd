"""Python files as syntax trees: what a name means in them, and where a setting is set. Nothing is run."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from doctor.findings import Place

# Tests call tasks in ways of their own, and other folders hold copies of what others wrote.
SKIPPED_FOLDERS = {"tests", "test", "node_modules", "site-packages", "venv", "env", "build", "dist", "__pycache__"}
SKIPPED_FILES = re.compile(r"(test_.*|.*_test|tests?|conftest)\.py")

Function = ast.FunctionDef | ast.AsyncFunctionDef
_INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(frozen=True, eq=False)
class Module:
    """A file. `name` is its dotted name, as far as the folders above it are packages."""

    path: Path
    name: str
    text: str
    tree: ast.Module

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the file."""
        return self.text.splitlines()

    @cached_property
    def imports(self) -> dict[str, str]:
        """What each imported name stands for: {"now": "django.utils.timezone.now"}."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    found[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom):
                origin = self._origin(node)
                found |= {alias.asname or alias.name: f"{origin}.{alias.name}" for alias in node.names}
        return found

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        up = node.level - (self.path.name == "__init__.py")
        base = parts[: len(parts) - up] if up else parts
        return ".".join([*base, *filter(None, [node.module])])

    def full_name(self, node: ast.AST) -> str:
        """Return the dotted name that an expression stands for, or an empty text."""
        if isinstance(node, ast.Name):
            return self.imports.get(node.id, f"{self.name}.{node.id}")
        if isinstance(node, ast.Attribute) and (owner := self.full_name(node.value)):
            return f"{owner}.{node.attr}"
        return ""

    def builtin(self, node: ast.AST | None) -> str:
        """Return the name of a builtin that a plain name stands for, or an empty text."""
        return node.id if isinstance(node, ast.Name) and node.id not in self.imports else ""

    def place(self, node: ast.AST) -> Place:
        """Return the place of a node."""
        return Place(path=self.path, line=getattr(node, "lineno", 1))


class Sources:
    """All files that were read."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.unreadable: list[Path] = []
        self.modules: list[Module] = []
        self._by_last_part: dict[str, list[Module]] = defaultdict(list)
        self.add(paths)

    def add(self, paths: Iterable[Path]) -> None:
        """Read more files. One that was read is not read again."""
        known = {module.path for module in self.modules}
        for path in dict.fromkeys(path.resolve() for path in paths):
            if path not in known:
                self._read(path)

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8-sig")
            module = Module(path, dotted_name(path), text, ast.parse(text))
        except (SyntaxError, ValueError, OSError, RecursionError):
            self.unreadable.append(path)
            return
        self.modules.append(module)
        self._by_last_part[module.name.rpartition(".")[2]].append(module)

    def find(self, name: str) -> Module | None:
        """Return the module of a dotted name, if it is the only one that ends so."""
        candidates = self._by_last_part[name.rpartition(".")[2]]
        exact = [module for module in candidates if module.name == name]
        if exact:
            return exact[0] if len(exact) == 1 else None
        # A folder without __init__.py may be a package, or the place that the import path names.
        near = [module for module in candidates if f".{_as_dots(module.path)}".endswith(f".{name}")]
        return near[0] if len(near) == 1 else None

    def defined(self, name: str, depth: int = 5) -> tuple[Module, str] | None:
        """Return the module that defines what a full name stands for, and its name there."""
        owner, _, own = name.rpartition(".")
        module = self.find(owner) if owner else None
        if module and own in module.imports and depth and module.imports[own] != name:
            return self.defined(module.imports[own], depth - 1)
        return (module, own) if module else None

    def where_set(self, names: set[str]) -> Place | None:
        """Return the first line that sets one of these settings."""
        for module in self.modules:
            for node, name in settings_in(module):
                if name in names:
                    return module.place(node)
        return None


def settings_in(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """Give each place where a name gets a value: `x = 1`, `conf.x = 1`, `f(x=1)`, `{"x": 1}`, `conf["x"] = 1`."""
    for node in module.nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node, name
            case ast.keyword(arg=str(name)):
                yield node, name
            case ast.Subscript(slice=ast.Constant(value=str(name)), ctx=ast.Store()):
                yield node, name
            case ast.Dict(keys=keys):
                for key in keys:
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        yield key, key.value


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Give the nodes below `node`, but not those of functions and classes inside it: they run elsewhere."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _INNER):
            yield child
            yield from own_nodes(child)


def dotted_name(path: Path) -> str:
    """Return the name of a file's module: the folders above it count while they are packages."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    for folder in path.parents:
        if not (folder / "__init__.py").exists():
            break
        parts.insert(0, folder.name)
    return ".".join(parts)


def _as_dots(path: Path) -> str:
    parts = path.parent.parts if path.name == "__init__.py" else path.with_suffix("").parts
    return ".".join(parts[1:])


def python_files(path: Path) -> Iterator[Path]:
    """Give a file, or the Python files of a folder that are not tests, copies or hidden."""
    if not path.is_dir():
        yield path
        return
    for child in sorted(path.iterdir()):
        if child.is_dir() and not child.is_symlink():
            if child.name not in SKIPPED_FOLDERS and not child.name.startswith("."):
                yield from python_files(child)
        elif child.suffix == ".py" and not SKIPPED_FILES.fullmatch(child.name):
            yield child
