"""Which functions of a program are Celery tasks, as far as its text says so for certain.

Other libraries have decorators named `task` too. So a decorator counts only if its owner is a Celery app:
made by `Celery(…)`, or imported from a module of the project that has celery in its name.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from doctor.source import Function, Module, Sources

APP_CLASSES = {"celery.Celery", "celery.app.Celery", "celery.app.base.Celery"}
DECORATORS = {"celery.shared_task", "celery.app.shared_task", "celery.task", "celery.task.task"}
OTHER_LIBRARIES = {"aio_celery"}  # they look like Celery, and await
TASK_CLASSES = {"celery.Task", "celery.app.task.Task", "celery.app.Task", "celery.task.Task"}


@dataclass(frozen=True, eq=False)
class TaskFunction:
    """The body of a task. `self_names`: the names by which it calls itself, such as self."""

    module: Module
    body: Function
    options: dict[str, ast.expr]
    self_names: frozenset[str]
    app: str = ""
    """The full name of the app in the decorator; empty for `shared_task` and for classes."""

    @property
    def full_name(self) -> str:
        """The dotted name of the function."""
        return f"{self.module.name}.{self.body.name}"


class TasksInCode:
    """The tasks of all files."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources

    @cached_property
    def all(self) -> list[TaskFunction]:
        """All tasks."""
        return [task for module in self.sources.modules for task in self._in_module(module)]

    @cached_property
    def names(self) -> set[str]:
        """The full names of all tasks."""
        return {task.full_name for task in self.all}

    def is_task(self, module: Module, node: ast.AST) -> bool:
        """Tell whether an expression names a task whose definition was read."""
        name = module.full_name(node)
        if name in self.names:
            return True
        found = self.sources.defined(name) if name else None
        return bool(found) and f"{found[0].name}.{found[1]}" in self.names  # type: ignore[index]

    def _in_module(self, module: Module) -> Iterator[TaskFunction]:
        if "celery" not in module.text and "task" not in module.text:
            return
        for node in module.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in node.decorator_list:
                    if task := self._decorated(module, node, decorator):
                        yield task
            elif isinstance(node, ast.ClassDef) and self._is_task_class(module, node):
                for body in node.body:
                    if isinstance(body, ast.FunctionDef) and body.name == "run" and body.args.args:
                        yield TaskFunction(module, body, {}, frozenset({body.args.args[0].arg}))

    def _is_task_class(self, module: Module, node: ast.ClassDef) -> bool:
        return any(
            module.full_name(base) in TASK_CLASSES
            or (isinstance(base, ast.Attribute) and base.attr == "Task" and self.is_app(module, base.value))
            for base in node.bases
        )

    def _decorated(self, module: Module, body: Function, decorator: ast.expr) -> TaskFunction | None:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = module.full_name(called)
        is_shared = name in DECORATORS
        is_own = isinstance(called, ast.Attribute) and called.attr == "task" and self.is_app(module, called.value)
        if not (is_shared or is_own):
            return None
        given = decorator.keywords if isinstance(decorator, ast.Call) else []
        options = {option.arg: option.value for option in given if option.arg}
        names = {body.name}
        if _is_true(options.get("bind")) and body.args.args:
            names.add(body.args.args[0].arg)
        app = module.full_name(called.value) if is_own and isinstance(called, ast.Attribute) else ""
        return TaskFunction(module, body, options, frozenset(names), app)

    def is_app(self, module: Module, node: ast.expr) -> bool:
        """Tell whether an expression is a Celery app."""
        name = module.full_name(node)
        if not name:
            return False
        if name == "celery.current_app" or name in self._apps:
            return True
        if found := self.sources.defined(name):
            return f"{found[0].name}.{found[1]}" in self._apps
        owner = name.rpartition(".")[0].split(".")
        # A module that was not read: of the project, and named for Celery.
        return owner[0] not in {"celery", *OTHER_LIBRARIES} and any("celery" in part for part in owner)

    @cached_property
    def _apps(self) -> set[str]:
        return {name for module in self.sources.modules if "elery" in module.text for name in _apps_in(module)}

    @cached_property
    def changed_classes(self) -> bool:
        """Whether the files give tasks a class of their own, or change how tasks are sent or called."""
        return any(_changes_tasks(module) for module in self.sources.modules)


def _apps_in(module: Module) -> Iterator[str]:
    own = {
        f"{module.name}.{node.name}"
        for node in module.nodes
        if isinstance(node, ast.ClassDef) and any(module.full_name(base) in APP_CLASSES for base in node.bases)
    }
    for node in module.nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=func)) | ast.AnnAssign(
                target=ast.Name(id=name), value=ast.Call(func=func)
            ):
                made_by = module.full_name(func)
                is_factory = "celery" in made_by.rpartition(".")[2].lower()
                is_foreign = made_by.partition(".")[0] in OTHER_LIBRARIES
                if made_by in APP_CLASSES | own or (is_factory and not is_foreign):
                    yield f"{module.name}.{name}"


def _changes_tasks(module: Module) -> bool:
    for node in module.nodes:
        match node:
            case ast.keyword(arg="task_cls"):
                return True
            case ast.FunctionDef(name="apply_async" | "delay"):
                return True
            case ast.Attribute(attr="Task", ctx=ast.Store()):
                return True
    return any("celery" in name and ("aio" in name or "pool" in name) for name in module.imports.values())


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True
