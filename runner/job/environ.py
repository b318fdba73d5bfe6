"""Values from the environment: `${VAR}`, `${VAR:-default}`, `${VAR:?why}`; `$${` is a plain `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from genrun.runner.job.tree import Value
from genrun.runner.job.yaml import retype

_USE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::([-?])([^}]*))?\})?")
_SECRET = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|\d|$)", re.IGNORECASE)


def looks_secret(name: str) -> bool:
    """Whether a variable of that name holds a secret: HF_TOKEN does, MAX_TOKENS does not."""
    return _SECRET.search(name) is not None


def fill(value: Value, environ: Mapping[str, str]) -> Value:
    """Replace every use of the environment in the texts of a document.

    A plain (unquoted) scalar takes the type of what it becomes, so that `steps: ${STEPS:-20}` is a number. A value
    made from a secret keeps its text as `source`, which is what may be stored. What cannot be replaced becomes a
    value that is `wrong`, which matters only if nothing is laid over it.
    """
    data = value.data
    if isinstance(data, dict):
        return replace(value, data={key: fill(child, environ) for key, child in data.items()})
    if isinstance(data, list):
        return replace(value, data=[fill(child, environ) for child in data])
    if not isinstance(data, str) or "${" not in data:
        return value
    return _fill_text(value, data, environ)


def escape(text: str) -> str:
    """Write a text so that reading it as a job file gives the text again."""
    return text.replace("${", "$${")


def _fill_text(value: Value, written: str, environ: Mapping[str, str]) -> Value:
    pieces, end, secret = [], 0, False
    for use in _USE.finditer(written):
        text, wrong = _look_up(use, environ)
        if wrong:
            return replace(value, data=None, wrong=wrong)
        pieces += [written[end : use.start()], text]
        end = use.end()
        secret = secret or (use[1] is not None and looks_secret(use[1]) and bool(environ.get(use[1])))
    text = "".join([*pieces, written[end:]])
    return replace(value, data=retype(text) if value.plain else text, source=written if secret else None)


def _look_up(use: re.Match[str], environ: Mapping[str, str]) -> tuple[str, str]:
    """The text for one use, and what is wrong with it or ""."""
    if use[0] == "$${":
        return "${", ""
    name, form, argument = use[1], use[2], use[3]
    if name is None:
        remedy = "Write ${NAME}, ${NAME:-default} or ${NAME:?why}, or `$${` for a plain `${`"
        return "", f"`${{` starts a variable that does not end. {remedy}."
    text = environ.get(name)
    wrong = ""
    if form == "-":
        text = text or argument
    elif form == "?" and not text:
        wrong = f"the environment variable {name} is not set: {argument or 'this job needs it'}."
    elif text is None:
        wrong = f"the environment variable {name} is not set. Set it, or give a default: ${{{name}:-...}}."
    if text and any("\ud800" <= char <= "\udfff" for char in text):
        wrong = f"the environment variable {name} is not UTF-8."
    return text or "", wrong
