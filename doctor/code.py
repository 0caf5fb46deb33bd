"""Rules on the code: what a task does, and how tasks are called. Each looks at a syntax tree."""

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from doctor.findings import Finding
from doctor.retry_rules import autoretry_everything, retry_everything, retry_swallowed
from doctor.source import Function, Module, own_nodes
from doctor.tasks_in_code import TaskFunction, TasksInCode

CANVAS = {"celery.group", "celery.chain", "celery.chord", "celery.chunks"}
WAITS = {"get", "join", "join_native", "wait"}


@dataclass(frozen=True)
class Facts:
    """What the code rules know of the app. None: the app was not read."""

    app_was_read: bool = False
    visibility_timeout: float | None = None  # seconds; None also if the broker is not Redis
    has_backend: bool | None = None
    waits_block: bool = True  # not so in gevent and eventlet
    naive_is_utc: bool = True
    is_eager: bool = False


def code_findings(tasks: TasksInCode, facts: Facts) -> Iterator[Finding]:
    """Give all findings in the code."""
    for task in tasks.all:
        for rule in TASK_RULES:
            yield from rule(task)
        if facts.waits_block:
            yield from waits_in_task(task, tasks)
        if not facts.app_was_read and not tasks.changed_classes:
            yield from async_task(task)
    bodies = {task.body for task in tasks.all}
    for module in tasks.sources.modules:
        for body in _scopes(module):
            for call in _calls_in(body):
                yield from _call_findings(module, body, call, body in bodies, tasks, facts)
            yield from sent_in_transaction(module, body, tasks)


def _call_findings(
    module: Module, body: ast.AST, call: ast.Call, in_task: bool, tasks: TasksInCode, facts: Facts
) -> Iterator[Finding]:
    if facts.naive_is_utc:
        yield from naive_eta(module, body, call)
    if facts.visibility_timeout is not None:
        yield from long_countdown(module, call, facts.visibility_timeout)
    if not in_task and not facts.is_eager:
        yield from waits_outside(module, body, call, tasks, facts)


def _scopes(module: Module) -> Iterator[ast.AST]:
    """Give the module and each function: what runs together."""
    yield module.tree
    yield from (node for node in module.nodes if isinstance(node, Function | ast.Lambda))


def _calls_in(body: ast.AST) -> Iterator[ast.Call]:
    yield from (node for node in own_nodes(body) if isinstance(node, ast.Call))


# --- in a task ------------------------------------------------------------------------------------------


def async_task(task: TaskFunction) -> Iterator[Finding]:
    """Find `async def` under a plain decorator, in a program that gives tasks no class of their own."""
    plain = isinstance(task.body, ast.AsyncFunctionDef) and len(task.body.decorator_list) == 1
    if plain and "base" not in task.options:
        what = f"{task.body.name} is `async def`, and its task class does not await."
        yield Finding("async-task", what, task.module.place(task.body))


def states_by_hand(task: TaskFunction) -> Iterator[Finding]:
    """Find `self.update_state(state="SUCCESS")`, and FAILURE without what an exception needs."""
    ignores = _raises_ignore(task)
    for call in _calls_in(task.body):
        if not _is_own(task, call, "update_state"):
            continue
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        state = _state_named(task.module, given.get("state"))
        if state == "SUCCESS" and not ignores and "task_id" not in given and not call.args:
            what = f"{task.body.name} stores SUCCESS before it ends."
            yield Finding("success-by-hand", what, task.module.place(call))
        if state == "FAILURE" and _is_no_exception(given.get("meta")):
            what = f'{task.body.name} stores FAILURE with a dictionary that has no "exc_type".'
            yield Finding("failure-by-hand", what, task.module.place(call))


def _raises_ignore(task: TaskFunction) -> bool:
    raised = [node.exc for node in own_nodes(task.body) if isinstance(node, ast.Raise) and node.exc]
    kinds = [error.func if isinstance(error, ast.Call) else error for error in raised]
    return any(task.module.full_name(kind).endswith((".Ignore", ".Reject")) for kind in kinds)


def _is_own(task: TaskFunction, call: ast.Call, method: str) -> bool:
    match call.func:
        case ast.Attribute(value=ast.Name(id=name), attr=attr):
            return attr == method and name in task.self_names
    return False


def _state_named(module: Module, node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    name = module.full_name(node) if node else ""
    return name.rpartition(".")[2] if name.startswith("celery.states.") else ""


def _is_no_exception(meta: ast.expr | None) -> bool:
    if not isinstance(meta, ast.Dict) or not all(isinstance(key, ast.Constant) for key in meta.keys):
        return False
    return "exc_type" not in {key.value for key in meta.keys if isinstance(key, ast.Constant)}


def waits_in_task(task: TaskFunction, tasks: TasksInCode) -> Iterator[Finding]:
    """Find `.get()` and the like on the result of another task."""
    if any(getattr(node, "id", getattr(node, "attr", "")) == "allow_join_result" for node in own_nodes(task.body)):
        return
    for call in _calls_in(task.body):
        method = _waiting_method(call)
        if method and _is_result(task.module, task.body, call.func, tasks, in_task=True):
            what = f"{task.body.name} waits for another task with .{method}()."
            yield Finding("wait-in-task", what, task.module.place(call))


TASK_RULES: tuple[Callable[[TaskFunction], Iterator[Finding]], ...] = (
    retry_swallowed,
    retry_everything,
    autoretry_everything,
    states_by_hand,
)


# --- results --------------------------------------------------------------------------------------------


def waits_outside(
    module: Module, body: ast.AST, call: ast.Call, tasks: TasksInCode, facts: Facts
) -> Iterator[Finding]:
    """Find `.get()` on the result of a known task: without a timeout, or without a result backend."""
    if not _waiting_method(call) or not _is_result(module, body, call.func, tasks, in_task=False):
        return
    if facts.has_backend is False:
        yield Finding("get-without-backend", "The app has no result backend.", module.place(call))
    elif not call.args and all(keyword.arg not in ("timeout", None) for keyword in call.keywords):
        yield Finding("get-without-timeout", "This waits without a limit.", module.place(call))


def _waiting_method(call: ast.Call) -> str:
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in WAITS:
        return ""
    is_forced = any(keyword.arg == "disable_sync_subtasks" for keyword in call.keywords)
    return "" if is_forced else call.func.attr


def _is_result(
    module: Module, body: ast.AST, method: ast.expr, tasks: TasksInCode, in_task: bool
) -> bool:
    """Tell whether the owner of a method is the result of a task: a call, or a name that it was given to."""
    assert isinstance(method, ast.Attribute)
    value: ast.expr | None = method.value
    if isinstance(value, ast.Name):
        value = _only_value(body, value.id)
    match value:
        case ast.Call(func=ast.Attribute(value=owner, attr="delay" | "apply_async" as sent)):
            # Inside a task nothing else has .delay; a multiprocessing pool has .apply_async.
            return tasks.is_task(module, owner) or (in_task and (sent == "delay" or _is_canvas(module, owner)))
        case ast.Call(func=ast.Attribute(value=owner, attr="AsyncResult")):
            return in_task and tasks.is_app(module, owner)
        case ast.Call(func=func):
            return in_task and (
                module.full_name(func) == "celery.result.AsyncResult" or _is_canvas(module, func)
            )
    return False


def _is_canvas(module: Module, node: ast.expr) -> bool:
    """Tell whether an expression is `group(…)` or the like, or joined of such with `|`."""
    if isinstance(node, ast.BinOp):
        return _is_canvas(module, node.left) or _is_canvas(module, node.right)
    return isinstance(node, ast.Call) and module.full_name(node.func) in CANVAS


def _only_value(body: ast.AST, name: str) -> ast.expr | None:
    """Return what a local name is given, if that happens once."""
    stores = [node for node in own_nodes(body) if isinstance(node, ast.Name) and node.id == name]
    if sum(isinstance(node.ctx, ast.Store) for node in stores) != 1:
        return None
    for node in own_nodes(body):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                return value
            case ast.AnnAssign(target=ast.Name(id=target), value=value) if target == name:
                return value
    return None


# --- calls ----------------------------------------------------------------------------------------------


def naive_eta(module: Module, body: ast.AST, call: ast.Call) -> Iterator[Finding]:
    """Find a local time without a zone as `eta` or `expires`."""
    if isinstance(call.func, ast.Attribute) and call.func.attr in ("apply_async", "retry", "send_task"):
        for keyword in call.keywords:
            if keyword.arg in ("eta", "expires") and _is_naive(module, body, keyword.value):
                what = f"{keyword.arg} is datetime.now(), which has no time zone."
                yield Finding("naive-eta", what, module.place(keyword.value))


def _is_naive(module: Module, body: ast.AST, node: ast.expr | None) -> bool:
    if isinstance(node, ast.Name):
        node = _only_value(body, node.id)
    match node:
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub()):
            return _is_naive(module, body, left)
        case ast.Call(func=func, args=[], keywords=[]):
            return module.full_name(func) in ("datetime.datetime.now", "datetime.datetime.today")
    return False


def long_countdown(module: Module, call: ast.Call, visibility_timeout: float) -> Iterator[Finding]:
    """Find a countdown that is longer than the visibility timeout."""
    if isinstance(call.func, ast.Attribute) and call.func.attr in ("apply_async", "retry"):
        for keyword in call.keywords:
            seconds = _number(keyword.value) if keyword.arg == "countdown" else None
            if seconds is not None and seconds > visibility_timeout:
                what = f"A countdown of {seconds:g} s, with a visibility timeout of {visibility_timeout:g} s."
                yield Finding("long-countdown", what, module.place(keyword.value))


def _number(node: ast.expr) -> float | None:
    """Return the value of a number, or of a product of numbers."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            factors = _number(left), _number(right)
            return None if None in factors else factors[0] * factors[1]  # type: ignore[operator]
    return None


# --- Django ---------------------------------------------------------------------------------------------

ATOMIC = {"django.db.transaction.atomic", "django.db.transaction.atomic.atomic"}


def sent_in_transaction(module: Module, body: ast.AST, tasks: TasksInCode) -> Iterator[Finding]:
    """Find a known task that is sent inside `transaction.atomic`."""
    if "atomic" not in module.text or tasks.changed_classes:
        return
    for call in _in_transactions(module, body):
        match call.func:
            case ast.Attribute(value=owner, attr="delay" | "apply_async") if tasks.is_task(module, owner):
                options = {keyword.arg for keyword in call.keywords}
                if call.func.attr == "delay" or not options & {"countdown", "eta", None}:
                    what = f"{ast.unparse(owner)} is sent before the transaction is committed."
                    yield Finding("sent-in-transaction", what, module.place(call))


def _in_transactions(module: Module, body: ast.AST) -> Iterable[ast.Call]:
    decorators = getattr(body, "decorator_list", [])
    if any(_is_atomic(module, decorator) for decorator in decorators):
        return dict.fromkeys(_calls_in(body))
    blocks = [
        node
        for node in own_nodes(body)
        if isinstance(node, ast.With) and any(_is_atomic(module, item.context_expr) for item in node.items)
    ]
    return dict.fromkeys(call for block in blocks for call in _calls_in(block))


def _is_atomic(module: Module, node: ast.expr) -> bool:
    return module.full_name(node.func if isinstance(node, ast.Call) else node) in ATOMIC
