"""Templates and wildcards of prompts.

A template is a text with blanks and no program: whatever could run long or grow large (loops, macros, assignments,
arithmetic, calls) is refused, and so are filters but a few, so that what comes out is bounded by what went in.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_EXPANDED = 100_000
"""Most prompts that a template or a list with wildcards becomes."""

FILTERS = ("lower", "upper", "title", "capitalize", "trim")

_CHOICE = re.compile(r"\{([^{}|]*(?:\|[^{}|]*)+)\}")
ALLOWED = frozenset(
    {
        *("Template", "Output", "TemplateData", "Name", "Const", "Filter", "Concat"),
        *("If", "CondExpr", "Compare", "Operand", "And", "Or", "Not"),
    }
)
"""Nodes of Jinja's syntax that a template may have."""


class TemplateError(ValueError):
    """A template that cannot be used, or that becomes too many prompts."""


def wildcards(text: str) -> Iterator[str]:
    """Yield a text with each `{a|b}` in it replaced by one of its alternatives, in order, the last one fastest.

    Raises:
        TemplateError: there are too many.
    """
    parts = _CHOICE.split(text)
    choices = [part.split("|") if place % 2 else [part] for place, part in enumerate(parts)]
    count = math.prod(map(len, choices))
    if count > MAX_EXPANDED:
        raise TemplateError(f"{count:,} combinations, more than {MAX_EXPANDED:,}. Leave some alternatives out")
    return map("".join, itertools.product(*choices))


def rendered(template: str, variables: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Yield a template filled in for each combination of its variables, in order, the last one fastest.

    Args:
        template: in Jinja's syntax.
        variables: name -> values; those that the template does not name are left out.

    Raises:
        TemplateError: it is none, does more than fill in, names other variables, or there are too many combinations.
    """
    from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, meta, nodes
    from jinja2.sandbox import SandboxedEnvironment

    def finished(value: Any) -> Any:
        if isinstance(value, bool):
            raise TemplateError(
                f"true and false are for conditions, and would be written {value}. Put the value in quotes"
            )
        return value

    environment = SandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, finalize=finished
    )
    try:
        tree = environment.parse(template)
    except (TemplateSyntaxError, RecursionError) as error:
        why = error.message if isinstance(error, TemplateSyntaxError) else "nested too deep"
        raise TemplateError(f"no template of Jinja: {why}") from error
    for node in tree.find_all(nodes.Node):
        name = type(node).__name__
        if name not in ALLOWED:
            raise TemplateError(f"{name} has no place in a prompt. Write {{{{ name }}}}, or {{% if name %}}")
        if isinstance(node, nodes.Filter) and (node.name not in FILTERS or node.args or node.kwargs):
            raise TemplateError(f"there is no filter {node.name!r} here. There are: {', '.join(FILTERS)}")
    used = meta.find_undeclared_variables(tree)
    for name in sorted(used - set(variables)):
        raise TemplateError(f"the variable {name!r} has no values. There are: {', '.join(variables) or 'none'}")
    values = {name: each for name, each in variables.items() if name in used}
    count = math.prod(map(len, values.values()))
    if count > MAX_EXPANDED:
        raise TemplateError(f"{count:,} combinations, more than {MAX_EXPANDED:,}. Leave some values out")
    compiled = environment.from_string(template)
    try:
        for chosen in itertools.product(*values.values()):
            yield compiled.render(dict(zip(values, chosen, strict=True)))
    except (UndefinedError, TypeError) as error:
        raise TemplateError(str(error)) from error
