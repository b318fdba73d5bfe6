"""Read the arguments of a diffusers pipeline's call off its source, so that neither diffusers nor torch is imported."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SUPPLIED = frozenset({"prompt", "generator"})
"""Arguments of a pipeline's call that every item supplies; other arguments are optional if they have a default."""

MEDIA = re.compile(r"(\w+_)?(image|video|mask|audio)s?|conditioning_frames|controls|hint")
"""Parameters that are pictures, clips or sounds: nothing that a job's options can hold."""

INPUTS = frozenset(
    {"image", "images", "video", "mask_image", "control_image", "control_video", "conditioning_frames", "controls"}
)
CONDITIONED = re.compile(
    r"Img2Img|Image2(Image|Video)|ImageTo|(?<!T)I2[IV]|VideoTo|V2V|Inpaint|Fill|Edit|Pix2Pix|Depth2|ControlNet|Control(PAG)?Pipeline"
    r"|Adapter|Upscale|Upsample|SuperResolution|Refine|Variation|Layered|VisualCloze"
)
"""Names of pipelines that start from a picture or a clip. Most declare `image=None` all the same and fail in their call
without one, so that the default tells nothing, and diffusers' names of tasks do."""

NEEDED = re.compile("text_encoder|tokenizer|transformer|unet")
"""Components that prompts and latents go through, also where diffusers calls them optional."""

FREE = frozenset(
    {
        "BriaFiboEditPipeline",
        "EasyAnimateControlPipeline",
        "EasyAnimateInpaintPipeline",
        "JoyImageEditPipeline",
        "JoyImageEditPlusPipeline",
    }
)
"""Named for an input that they do without."""


@dataclass(frozen=True)
class Parameter:
    """A named argument of a pipeline's call.

    Attributes:
        name: as it is written in the call.
        required: it has no default.
    """

    name: str
    required: bool


@cache
def call_parameters(class_name: str) -> tuple[Parameter, ...] | None:
    """List the named parameters of a pipeline's `__call__`, inherited or its own.

    Args:
        class_name: of a pipeline of the installed diffusers.

    Returns:
        without `self`, `*args` and `**kwargs`; None for a class that is no pipeline of the installed diffusers.
    """
    call = _method(class_name, "__call__")
    return None if call is None else tuple(_parameters(call))


@cache
def default_of(class_name: str, parameter: str) -> Any:
    """Return the default of an argument of a pipeline's call; None where it has none, or none that is a constant."""
    call = _method(class_name, "__call__")
    if call is None:
        return None
    arguments = [*call.args.posonlyargs, *call.args.args]
    named = zip(arguments[len(arguments) - len(call.args.defaults) :], call.args.defaults, strict=True)
    found = next((value for argument, value in named if argument.arg == parameter), None)
    return found.value if isinstance(found, ast.Constant) else None


@cache
def is_exported(class_name: str) -> bool:
    """Tell whether `diffusers.<class_name>` is there: some pipelines lie in its source without being exported."""
    root = _root()
    return root is not None and f'"{class_name}"' in _text(root / "__init__.py")


def missing_inputs(class_name: str, given: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """List what a pipeline cannot do without and no job can give: a picture to start from, embeddings, labels.

    Args:
        class_name: of a pipeline of the installed diffusers.
        given: arguments that a job gives by name; none of them can be a picture.
    """
    parameters = call_parameters(class_name) or ()
    required = [one.name for one in parameters if one.required and one.name not in SUPPLIED]
    missing = [name for name in required if name not in given or MEDIA.fullmatch(name)]
    if not missing and CONDITIONED.search(class_name) and class_name not in FREE:
        missing = [one.name for one in parameters if one.name in INPUTS]
    return tuple(missing)


@cache
def required_components(class_name: str) -> tuple[str, ...]:
    """List the components that a pipeline is not made without: arguments of its `__init__` that no default replaces."""
    init = _method(class_name, "__init__")
    optional = _optional_components(class_name)
    required = _parameters(init) if init is not None else ()
    return tuple(one.name for one in required if one.required and one.name not in optional)


@cache
def methods(class_name: str) -> dict[str, ast.FunctionDef]:
    """Return the methods of a pipeline's class by name, its own and those of its bases in diffusers."""
    found: dict[str, ast.FunctionDef] = {}
    for member in _members(class_name, _file_of(class_name), set()):
        if isinstance(member, ast.FunctionDef):
            found.setdefault(member.name, member)
    return found


@cache
def bases_of(class_name: str) -> frozenset[str]:
    """Name the classes that a pipeline inherits from, as far as diffusers' pipelines define them, mixins included."""
    file, found = _file_of(class_name), set[str]()
    waiting = [] if file is None else [(class_name, file)]
    while waiting:
        name, source = waiting.pop()
        node = _classes_in(source).get(name)
        for base in [] if node is None else [ast.unparse(each).rpartition(".")[2] for each in node.bases]:
            # Where a mixin of another package is defined is not looked for: its name says what it is.
            place = None if base in found or base.endswith("Mixin") else _file_of_base(base, source)
            waiting += [] if place is None else [(base, place)]
            found.add(base)
    return frozenset(found)


def takes_loras(class_name: str) -> bool:
    """Tell whether a pipeline can be given LoRAs."""
    return any(base.endswith("LoraLoaderMixin") for base in bases_of(class_name))


def takes_ip_adapters(class_name: str) -> bool:
    """Tell whether a pipeline can be given IP-Adapters."""
    return any(base.endswith("IPAdapterMixin") for base in bases_of(class_name))


def can_lack(class_name: str, component: str, there: Collection[str] = ()) -> bool:
    """Tell whether a pipeline makes pictures of prompts without a component.

    It does where its code says what to do without it, and without the tokenizer of such a text encoder; where the component
    is optional, too, unless that is for those who pass what it would make, such as embeddings.

    Args:
        class_name: of the pipeline.
        component: its name for it.
        there: the components that it has.
    """
    is_spare = component in _optional_components(class_name) and not NEEDED.match(component)
    if is_spare or _is_provided_for(class_name, component):
        return True
    encoder = component.replace("tokenizer", "text_encoder")
    return encoder not in (component, *there) and _is_provided_for(class_name, encoder)


@cache
def _is_provided_for(class_name: str, component: str) -> bool:
    """Tell whether a pipeline's code does something else, and not refuse, where it has no such component.

    One that is needed is only provided for where something else is returned for it: SDXL asks for its second encoder, too.
    """
    members = _members(class_name, _file_of(class_name), set())
    functions = (member for member in members if isinstance(member, ast.FunctionDef))
    return any(
        isinstance(node, ast.If)
        and ast.unparse(node.test) == f"self.{component} is None"
        and not isinstance(node.body[-1], ast.Raise)
        and (isinstance(node.body[-1], ast.Return) or not NEEDED.match(component))
        for function in functions
        for node in ast.walk(function)
    )


def missing_components(class_name: str, there: Collection[str]) -> tuple[str, ...]:
    """List the components that a pipeline needs and has not.

    Args:
        class_name: of the pipeline.
        there: the components that it has.
    """
    absent = (name for name in required_components(class_name) if name not in there)
    return tuple(name for name in absent if not can_lack(class_name, name, there))


@cache
def component_names(class_name: str) -> tuple[str, ...]:
    """List the components that a pipeline can be made of: the arguments of its `__init__`."""
    init = _method(class_name, "__init__")
    return () if init is None else tuple(one.name for one in _parameters(init))


def annotation_of(class_name: str, parameter: str) -> str:
    """Spell the annotation of an argument of a pipeline's `__init__`; "" where it has none."""
    init = _method(class_name, "__init__")
    arguments = [] if init is None else [*init.args.args, *init.args.kwonlyargs]
    found = next((each.annotation for each in arguments if each.arg == parameter), None)
    return "" if found is None else ast.unparse(found).strip("'\"")


@cache
def argument_of(class_name: str, parameter: str) -> tuple[str, Any]:
    """Return the annotation of an argument of a pipeline's call, "" without one, and its default.

    The default is `...` where there is none, or one that is not written out.
    """
    call = _method(class_name, "__call__")
    if call is None:
        return "", ...
    named = [*call.args.posonlyargs, *call.args.args]
    defaults = [*[None] * (len(named) - len(call.args.defaults)), *call.args.defaults, *call.args.kw_defaults]
    for argument, default in zip([*named, *call.args.kwonlyargs], defaults, strict=True):
        if argument.arg == parameter:
            annotation = "" if argument.annotation is None else ast.unparse(argument.annotation).strip("'\"")
            try:
                return annotation, ... if default is None else ast.literal_eval(default)
            except ValueError:
                return annotation, ...
    return "", ...


@cache
def source_of(module: str) -> ast.Module:
    """Parse a module of diffusers.pipelines; an empty one where diffusers is not there."""
    root = _root()
    return ast.Module([], []) if root is None else _tree(root / "pipelines" / f"{module}.py")


@cache
def is_package(name: str) -> bool:
    """Tell whether diffusers has pipelines of its own classes under a name, such as `stable_diffusion`."""
    root = _root()
    return root is not None and name.isidentifier() and (root / "pipelines" / name).is_dir()


@cache
def missing_package(class_name: str) -> str:
    """Return the package that a pipeline cannot clean prompts without, where it is not installed; "" for none.

    Diffusers imports ftfy where it is there. Some pipelines use it in any case, and fail in their call.
    """
    file = _file_of(class_name)
    source = "" if file is None else _text(file)
    is_guarded = source.count("is_ftfy_available()") > 1
    return "ftfy" if "ftfy.fix_text" in source and not is_guarded and not importlib.util.find_spec("ftfy") else ""


@cache
def package_of_processor(class_name: str) -> str:
    """Return the package that a processor of transformers needs, where it is not installed; "" for none."""
    found = importlib.util.find_spec("transformers")
    if not class_name.endswith("Processor") or found is None or found.origin is None:
        return ""
    for file in (Path(found.origin).parent / "models").glob("*/processing_*.py"):
        source = _text(file)
        if f"\nclass {class_name}(" in source:
            needs = "video_processor" in source and not importlib.util.find_spec("torchvision")
            return "torchvision" if needs else ""
    return ""


def version() -> str:
    """Return the version of the installed diffusers, or "" where there is none."""
    from importlib import metadata

    try:
        return metadata.version("diffusers")
    except metadata.PackageNotFoundError:
        return ""


@cache
def _root() -> Path | None:
    found = importlib.util.find_spec("diffusers")
    return None if found is None or found.origin is None else Path(found.origin).parent


def _package_of(class_name: str) -> Path | None:
    """Find the package below diffusers.pipelines that exports a class; None where none does."""
    root = _root()
    if root is None or not class_name.isidentifier():
        return None
    listing = _text(root / "pipelines" / "__init__.py")
    at = listing.find(f'"{class_name}"')
    # The entries of `_import_structure` are `["package"] = [classes]`, or `["package"].extend([classes])`.
    packages = re.findall(r'_import_structure\["(\w+)"\]', listing[:at]) if at >= 0 else []
    return root / "pipelines" / packages[-1] if packages else None


def _members(class_name: str, file: Path | None, seen: set[str]) -> Iterator[ast.stmt]:
    """Iterate over the statements of a class, the last one first, and after them those of its bases."""
    node = None if file is None or class_name in seen else _classes_in(file).get(class_name)
    seen.add(class_name)
    if file is None or node is None:
        return
    yield from reversed(node.body)
    for base in node.bases:
        name = ast.unparse(base).rpartition(".")[2]
        yield from _members(name, _file_of_base(name, file), seen)


def _method(class_name: str, name: str) -> ast.FunctionDef | None:
    """Find a class's method, its own or inherited."""
    for member in _members(class_name, _file_of(class_name), set()):
        if isinstance(member, ast.FunctionDef) and member.name == name:
            return member
    return None


def _optional_components(class_name: str) -> set[str]:
    for member in _members(class_name, _file_of(class_name), set()):
        targets = [ast.unparse(target) for target in member.targets] if isinstance(member, ast.Assign) else []
        if isinstance(member, ast.Assign) and targets == ["_optional_components"]:
            names = ast.literal_eval(member.value)
            return {str(name) for name in names}
    return set()


def _file_of(class_name: str) -> Path | None:
    """Find the source of a class that diffusers.pipelines exports."""
    package = _package_of(class_name)
    if package is None:
        return None
    opening = f"\nclass {class_name}(".encode()
    for file in sorted(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]:
        if opening in file.read_bytes():
            return file
    return None


def _file_of_base(class_name: str, file: Path) -> Path | None:
    """Find the source of a class that a source uses: its own, or that which it imports the class from."""
    if class_name in _classes_in(file):
        return file
    for node in _tree(file).body:
        if isinstance(node, ast.ImportFrom) and node.level and class_name in {one.name for one in node.names}:
            folder = file.parents[node.level - 1]
            found = folder.joinpath(*(node.module or "").split(".")).with_suffix(".py")
            return found if found.is_file() else _file_of(class_name)
    return None


def _classes_in(file: Path) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _tree(file).body if isinstance(node, ast.ClassDef)}


@cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _parameters(call: ast.FunctionDef) -> Iterator[Parameter]:
    arguments = call.args
    by_position = [*arguments.posonlyargs, *arguments.args]
    without_default = len(by_position) - len(arguments.defaults)
    for index, argument in enumerate(by_position[1:], 1):
        yield Parameter(argument.arg, index < without_default)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield Parameter(argument.arg, default is None)
