"""Read off diffusers' source, importing neither it nor torch: how a pipeline's loops step, and the class for a task."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock
from types import CodeType, FunctionType
from typing import Any

from genrun.adapters.checkpoint.pipeline_classes import is_exported, methods, source_of

PARSING = Lock()
"""Python 3.11 can build one syntax tree at a time: two threads fail with a SystemError."""
IN_LOOP = (ast.For, ast.While)
OTHER_STEPS = re.compile(r"step_(correct|pred)|undo_step")
"""Methods of schedulers that change latents and are not the step that a solver takes."""
MAY_STEP = re.compile(r"step.*|.*_pipe")
"""Names in the code of a method that steps a scheduler, or calls a pipeline."""
DELEGATES = "leaves the steps to other pipelines that it calls"
"""Why a pipeline without a loop of its own has no step to choose."""


@dataclass(frozen=True)
class Loops:
    """Steps of a pipeline's call, as its source tells them.

    Attributes:
        steps: it has a loop that steps a scheduler, or calls another pipeline that may.
        several: a call goes through such loops more than once, whatever its arguments.
        repeats: variables of the call that say how often it goes through its loop.
        apart: why there is no step of the whole of its latents for a solver to choose; "" where there is.
        carried: variables that an iteration reads before it sets them, but for the latents and what is made of them.
        looks_ahead: each step is taken twice: once for its x0-prediction, and taken back (Cosmos).
        turned: the axes of what it prepares in the order in which its loop has them (AnyFlow); empty where that is the same.
        reshaped: its loop has what it prepares in another shape (Shap-E).
        unread: a method that steps and whose source is not there to read; "" where all are read.
    """

    steps: bool
    several: bool
    repeats: tuple[str, ...]
    apart: str = ""
    carried: tuple[str, ...] = ()
    looks_ahead: bool = False
    turned: tuple[int, ...] = ()
    reshaped: bool = False
    unread: str = ""

    def repeated(self, variables: Mapping[str, Any]) -> bool:
        """Return whether a call goes through its loops more than once, by its variables in the first of them."""
        return self.several or any(variables.get(name) != 1 for name in self.repeats)


@cache
def loops_of(class_name: str) -> Loops | None:
    """Read the loops of a pipeline of the installed diffusers; None for a class that is none."""
    return _loops_of(methods(class_name))


def _loops_of(found: Mapping[str, ast.FunctionDef]) -> Loops | None:
    if "__call__" not in found:
        return None
    inner = [(method, loop) for method in found.values() for loop in _stepping(method)]
    around = [outer for method, loop in inner for outer in _around(method, loop)]
    counted = [_count(outer) for outer in around]
    called = [method for method in found.values() if _calls_pipeline(method)]
    changes = list(_changes_of_prepared(found["__call__"]))
    return Loops(
        steps=bool(inner or called),
        several=len(inner) > 1 or None in counted,
        repeats=tuple(name for name in counted if name),
        apart=next(
            (why for method, loop in inner if (why := _apart(method, loop))), DELEGATES if called and not inner else ""
        ),
        carried=tuple(sorted({name for _, loop in inner for name in _carried(loop)})),
        looks_ahead=any(map(_takes_back, (loop for _, loop in inner))),
        turned=next((_axes(change) for change in changes if change.func.attr == "permute"), ()),
        reshaped=any(change.func.attr == "reshape" for change in changes),
    )


def loops_of_type(plain: type) -> Loops | None:
    """Read the loops of a class, those that it defines itself before those of the one in diffusers that it extends."""
    extended = next((base.__name__ for base in plain.__mro__ if loops_of(base.__name__) is not None), None)
    own = _own_methods(plain)
    if not own:
        return None if extended is None else loops_of(extended)
    read = {name: tree for name, method in own.items() if (tree := _tree(method.__code__)) is not None}
    found = _loops_of({**({} if extended is None else methods(extended)), **read})
    found, unread = found or Loops(steps=True, several=False, repeats=()), [name for name in own if name not in read]
    # Where steps of one's own fall apart is seen when they do.
    apart = "" if "__call__" in own and found.apart != DELEGATES else found.apart
    return replace(found, apart=apart, unread=next(iter(unread), ""))


def _own_methods(plain: type) -> dict[str, FunctionType]:
    """Return the methods of a class outside diffusers that may step, by name."""
    found: dict[str, FunctionType] = {}
    for name, member in ((name, member) for base in plain.__mro__ for name, member in vars(base).items()):
        method = inspect.unwrap(member) if isinstance(member, FunctionType) else None
        if isinstance(method, FunctionType) and any(map(MAY_STEP.fullmatch, method.__code__.co_names)):
            found.setdefault(name, method)
    return {name: each for name, each in found.items() if not each.__module__.startswith("diffusers.")}


@cache
def _tree(code: CodeType) -> ast.FunctionDef | None:
    """Parse a function; None where its source is not there, as of one typed into a shell."""
    try:
        with PARSING:
            tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError):
        return None
    return next((each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)), None)


def _is_step(node: ast.AST) -> bool:
    """Return whether a node is a call of a scheduler's step."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    if node.func.attr == "step":  # of a copy of a scheduler too, which may be called anything
        return bool(node.args or node.keywords)
    return node.func.attr.startswith("step") and "scheduler" in ast.unparse(node.func.value)


def _calls_pipeline(method: ast.FunctionDef) -> bool:
    calls = (node.func for node in ast.walk(method) if isinstance(node, ast.Call))
    return any(isinstance(func, ast.Attribute) and func.attr.endswith("_pipe") for func in calls)


def _stepping(method: ast.FunctionDef) -> Iterator[ast.For | ast.While]:
    """Yield the innermost loops over steps: one over the schedulers of a step belongs to it."""
    for loop in ast.walk(method):
        if isinstance(loop, IN_LOOP) and _steps_in(loop) and not any(map(_loops_over_steps, loop.body)):
            inside = [each for statement in loop.body for each in ast.walk(statement)]
            inner = [each for each in inside if isinstance(each, IN_LOOP) and _steps_in(each)]
            if not inner or _steps_a_list(loop):
                yield loop


def _loops_over_steps(statement: ast.stmt) -> bool:
    return any(
        isinstance(each, ast.For) and "timesteps" in ast.unparse(each.iter) and _steps_in(each)
        for each in ast.walk(statement)
    )


def _steps_in(loop: ast.For | ast.While) -> bool:
    return any(_is_step(node) for statement in loop.body for node in ast.walk(statement))


def _apart(method: ast.FunctionDef, loop: ast.For | ast.While) -> str:
    if _steps_a_list(loop):
        return "steps each frame with a scheduler and at times of its own"
    calls = (node.func for node in ast.walk(loop) if isinstance(node, ast.Call))
    others = (func.attr for func in calls if isinstance(func, ast.Attribute) and OTHER_STEPS.fullmatch(func.attr))
    name = next(others, None)
    if name is not None:
        return f"changes its latents by its scheduler's {name} beside its step"
    outer = (each for each in _around(method, loop) if isinstance(each, ast.For))
    is_inside = any("timesteps" in ast.unparse(each.iter) for each in outer)
    return "steps parts of its latents one after another at each timestep" if is_inside else ""


def _steps_a_list(loop: ast.For | ast.While) -> bool:
    steps = [node for statement in loop.body for node in ast.walk(statement) if _is_step(node)]
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Subscript)
        for node in steps
    )


def _around(method: ast.FunctionDef, loop: ast.For | ast.While) -> list[ast.For | ast.While]:
    """List the loops that a loop is in."""
    outer = (each for each in ast.walk(method) if isinstance(each, IN_LOOP) and each is not loop)
    return [each for each in outer if any(loop is inside for inside in ast.walk(each))]


def _count(loop: ast.For | ast.While) -> str | None:
    """Return the variable N of a loop over `range(N)`, None for another."""
    over = loop.iter if isinstance(loop, ast.For) else None
    if not (isinstance(over, ast.Call) and ast.unparse(over.func) == "range" and len(over.args) == 1):
        return None
    return over.args[0].id if isinstance(over.args[0], ast.Name) else None


def _takes_back(loop: ast.For | ast.While) -> bool:
    changes = (node for statement in loop.body for node in ast.walk(statement) if isinstance(node, ast.AugAssign))
    return any("_step_index" in ast.unparse(node.target) and isinstance(node.op, ast.Sub) for node in changes)


def _changes_of_prepared(call: ast.FunctionDef) -> Iterator[Any]:
    """Yield what is called on the result of `prepare_latents`, kept under the same name, before the loop of a call."""
    prepared, loops = set[str](), {id(loop) for loop in _stepping(call)}
    for statement in call.body if loops else ():
        if any(id(each) in loops for each in ast.walk(statement)):
            return
        if not isinstance(statement, ast.Assign):
            continue
        names = {name for name, is_read in _names(statement) if not is_read}
        for each in ast.walk(statement.value):
            if not (isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute)):
                continue
            if each.func.attr == "prepare_latents":
                prepared |= names
            elif prepared & names & {name for name, _ in _names(each.func.value)}:
                yield each


def _axes(permute: ast.Call) -> tuple[int, ...]:
    return tuple(ast.literal_eval(axis) for axis in permute.args)


def _carried(loop: ast.For | ast.While) -> set[str]:
    first: dict[str, bool] = {}
    is_set, made, stepped = set[str](), set[str](), set[str]()
    for statement in [*([loop.target] if isinstance(loop, ast.For) else []), *loop.body]:
        for name, is_read in _names(statement):
            first.setdefault(name, is_read)
            if not is_read:
                is_set.add(name)
        for each in ast.walk(statement):
            if not isinstance(each, ast.Assign):
                continue
            if any(map(_is_step, ast.walk(each.value))):
                made |= {name for name, _ in _names(each)}
                stepped |= {name for name, is_read in _names(each) if not is_read}
            elif stepped & {name for name, _ in _names(each.value)}:
                stepped |= {name for name, is_read in _names(each) if not is_read}
    return {name for name in is_set - made - stepped if first[name]}


def _names(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield the variables of a statement as it comes to them, with whether it reads them; callbacks are left out."""
    if isinstance(node, ast.Name):
        yield node.id, isinstance(node.ctx, ast.Load)
        return
    if isinstance(node, ast.If) and "callback" in ast.unparse(node.test):
        return
    parts = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.For):
        # What is assigned is worked out before.
        after = node.targets if isinstance(node, ast.Assign) else [node.target]
        parts = [*(part for part in parts if part not in after and not isinstance(part, ast.stmt)), *after]
        parts += [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt)]
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, True
    if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp):
        own = {name for part in node.generators for name, _ in _names(part.target)}
        inside = (found for part in parts for found in _names(part))
        yield from ((name, True) for name, _ in inside if name not in own)
        return
    for part in parts:
        yield from _names(part)


TASKS: Mapping[str, tuple[str, ...]] = {
    "text-to-image": ("",),
    "image-to-image": ("Img2Img", "Image2Image"),
    "inpainting": ("Inpaint", "Inpainting"),
    "text-to-video": ("",),
    "image-to-video": ("ImageToVideo", "Image2Video", "I2V"),
    "video-to-video": ("VideoToVideo", "Video2Video", "V2V"),
}
"""Task -> the words for it in names of pipeline classes."""

CONTROLS: Mapping[str, str] = {
    "controlnet_union": "ControlNetUnion",
    "controlnet": "ControlNet",
    "t2i_adapter": "Adapter",
}
"""Addition to a pipeline -> the word for it in names of pipeline classes."""

UNION = "ControlNetUnionModel"
"""Class of a ControlNet that has pipelines of its own."""

_WORDS = sorted({word for words in TASKS.values() for word in words if word} | set(CONTROLS.values()), key=len)
_MARKED = re.compile(rf"({'|'.join(reversed(_WORDS))})(?=.*Pipeline$)")
_ENDINGS = {"controlnet_union": "-controlnet-union", "controlnet": "-controlnet"}
_MAPPINGS = {
    "text-to-image": "AUTO_TEXT2IMAGE_PIPELINES_MAPPING",
    "image-to-image": "AUTO_IMAGE2IMAGE_PIPELINES_MAPPING",
    "inpainting": "AUTO_INPAINT_PIPELINES_MAPPING",
    "text-to-video": "AUTO_TEXT2VIDEO_PIPELINES_MAPPING",
    "image-to-video": "AUTO_IMAGE2VIDEO_PIPELINES_MAPPING",
    "video-to-video": "AUTO_VIDEO2VIDEO_PIPELINES_MAPPING",
}
"""Task -> the table of it in diffusers' auto_pipeline.py."""


def control_of(control: str | None, kind: str | None) -> str | None:
    """Return the control of a pipeline, by the key of a job and the class of the first that is named there.

    Args:
        control: controlnet, t2i_adapter, or None.
        kind: class of the ControlNet or adapter; None where it is not known.
    """
    return "controlnet_union" if control == "controlnet" and kind == UNION else control


def task_of(inputs: Collection[str], kind: str | None) -> str | None:
    """Return the task that given inputs stand for, or None where there are none.

    Args:
        inputs: names of what a prompt comes with: image, video, mask.
        kind: what the model makes, "video" or "image".
    """
    if "mask" in inputs:
        return "inpainting"
    if "video" in inputs:
        return "video-to-video"
    if "image" in inputs:
        return "image-to-video" if kind == "video" else "image-to-image"
    return None


@cache
def pipeline_for(class_name: str, task: str | None = None, control: str | None = None) -> str | None:
    """Return the pipeline class that runs the components of another one for a task; None where diffusers has none.

    Args:
        class_name: of the pipeline that a checkpoint says.
        task: one of `TASKS`; by default that of the class itself.
        control: one of `CONTROLS` that is added to the components, or None for that of the class itself.
    """
    if control is None and task is None:
        return class_name
    wanted = control or next((each for each, word in CONTROLS.items() if word in class_name), None)
    if task is None:
        words = tuple(_MARKED.findall(class_name))
        words = tuple(word for word in words if word not in CONTROLS.values()) or ("",)
    else:
        words = TASKS[task]
    table = {} if task is None else _tables().get(task, {})
    for name in [] if task is None else _keys(class_name, wanted):
        if name in table:
            return table[name]
    return next(
        (name for name in _class_names(class_name, words, CONTROLS.get(wanted or "", "")) if is_exported(name)), None
    )


def _class_names(class_name: str, words: Collection[str], control: str) -> Iterator[str]:
    """Yield names that a class may have, as diffusers puts them together."""
    stem = _MARKED.sub("", class_name).removesuffix("Pipeline")
    for word in words:
        yield f"{stem}{control}{word}Pipeline"
        yield f"{stem}{word}{control}Pipeline"


def _keys(class_name: str, control: str | None) -> Iterator[str]:
    """Yield the name of a class's model in diffusers' tables, with that of a control."""
    for table in _tables().values():
        for key, found in table.items():
            if found == class_name:
                ending = _ENDINGS.get(control or "", "")
                yield f"{re.sub('-controlnet(-union)?$', '', key)}{ending}" if ending else key


@cache
def _tables() -> dict[str, dict[str, str]]:
    """Read the tables of diffusers' auto_pipeline.py: task -> model -> class."""
    named = {table: task for task, table in _MAPPINGS.items()}
    found: dict[str, dict[str, str]] = {}
    for node in source_of("auto_pipeline").body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        task = named.get(ast.unparse(node.targets[0]))
        pairs = node.value.args[0] if node.value.args else None
        if task is not None and isinstance(pairs, ast.List):
            rows = [row.elts for row in pairs.elts if isinstance(row, ast.Tuple) and len(row.elts) == 2]
            found[task] = {str(ast.literal_eval(key)): ast.unparse(value) for key, value in rows}
    return found
