"""Rules on `self.retry`: who catches the Retry that it raises, and what is retried."""

import ast
from collections.abc import Iterator

from doctor.findings import Finding
from doctor.source import Module, own_nodes
from doctor.tasks_in_code import TaskFunction

BROAD = {"Exception", "BaseException"}
CATCH_RETRY = {"Retry", "TaskPredicate", "CeleryError"}
# What an `except` block may do with the error and still swallow it. Another function might raise it again.
HARMLESS = {
    *("debug", "info", "warning", "warn", "error", "exception", "critical", "log", "print"),
    *("str", "repr", "format", "type", "isinstance", "capture_exception", "record_exception", "format_exc"),
}


def retry_swallowed(task: TaskFunction) -> Iterator[Finding]:
    """Find `self.retry` inside a `try` that catches every exception and goes on."""
    for attempt in own_nodes(task.body):
        if isinstance(attempt, ast.Try) and (handler := _swallowing(task.module, attempt)):
            for call in _retries_in(task, attempt.body):
                what = f"{task.body.name}: `except` in line {handler.lineno} swallows this retry."
                yield Finding("retry-swallowed", what, task.module.place(call))


def retry_everything(task: TaskFunction) -> Iterator[Finding]:
    """Find `except Exception: self.retry()` without a condition, and without other handlers before."""
    for attempt in own_nodes(task.body):
        if not isinstance(attempt, ast.Try) or not is_broad(task.module, attempt.handlers[:1]):
            continue
        handler = attempt.handlers[0]
        for statement in handler.body:
            if isinstance(statement, ast.If | ast.Try | ast.Match | ast.With | ast.For | ast.While):
                break  # it may look at the error first
            if any(_is_retry(task, node) for node in own_nodes(statement)):
                what = f"{task.body.name} is retried after any exception."
                yield Finding("retry-everything", what, task.module.place(handler))
                break


def autoretry_everything(task: TaskFunction) -> Iterator[Finding]:
    """Find `autoretry_for=(Exception,)`."""
    errors = task.options.get("autoretry_for")
    if not isinstance(errors, ast.Tuple | ast.List) or "dont_autoretry_for" in task.options:
        return
    if any(task.module.builtin(error) in BROAD for error in errors.elts):
        what = f"{task.body.name} is retried after any exception."
        yield Finding("autoretry-everything", what, task.module.place(errors))


def is_broad(module: Module, handlers: list[ast.ExceptHandler]) -> bool:
    """Tell whether the first of these handlers catches every exception."""
    if not handlers:
        return False
    kind = handlers[0].type
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return kind is None or any(module.builtin(one) in BROAD for one in kinds)


def _swallowing(module: Module, attempt: ast.Try) -> ast.ExceptHandler | None:
    """Return the handler that catches Retry and does not raise."""
    for number, handler in enumerate(attempt.handlers):
        if is_broad(module, attempt.handlers[number:]):
            return None if _may_raise(handler) else handler
        if _may_catch_retry(handler.type):
            return None
    return None


def _may_catch_retry(kind: ast.expr | None) -> bool:
    """Tell whether an `except` may name Retry: by its name, or by a variable that says nothing."""
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    names = [one.attr if isinstance(one, ast.Attribute) else getattr(one, "id", "") for one in kinds]
    return any(name in CATCH_RETRY or name.upper() == name or name.lower() == name for name in names)


def _may_raise(handler: ast.ExceptHandler) -> bool:
    for node in own_nodes(handler):
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            hands_on = any(isinstance(value, ast.Name) and value.id == handler.name for value in given)
            if name in ("retry", "exit", "_exit") or (hands_on and name not in HARMLESS):
                return True
    return False


def _retries_in(task: TaskFunction, statements: list[ast.stmt]) -> Iterator[ast.Call]:
    """Give the retries whose Retry leaves these statements."""
    for statement in statements:
        for node in _escaping(task.module, statement):
            if _is_retry(task, node):
                assert isinstance(node, ast.Call)
                yield node


def _escaping(module: Module, node: ast.AST) -> Iterator[ast.AST]:
    """Give a node and those below it, without what an inner `try` that catches everything protects."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        protects = isinstance(node, ast.Try) and child in node.body
        if protects and any(
            is_broad(module, [handler]) or _may_catch_retry(handler.type)
            for handler in node.handlers  # type: ignore[attr-defined]
        ):
            continue
        yield from _escaping(module, child)


def _is_retry(task: TaskFunction, node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="retry"), keywords=keywords):
            return name in task.self_names and all(keyword.arg != "throw" for keyword in keywords)
    return False
