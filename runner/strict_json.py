"""JSON as genrun writes it: no NaN, no infinite numbers."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, NoReturn


def read_json(data: bytes | str) -> Any:
    """Parse JSON as genrun writes it.

    Raises:
        ValueError: it is no JSON, or holds NaN or an infinite number.
        RecursionError: it is nested too deeply.
    """
    text = data if isinstance(data, str) else data.decode("utf-8")
    try:
        found, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError:
        return _DECODER.decode(text)
    # As genrun writes it, nothing stands around a value; `decode` looks for that with regular expressions, and is slower.
    return found if end == len(text) or text[end:] == "\n" else _DECODER.decode(text)


def canonical(data: Any) -> bytes:
    """Return JSON that is the same for the same data: sorted keys, no spaces, ASCII."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not isfinite(value):
        raise ValueError(f"holds {digits:.30}, which is too large")
    return value


# Made once: making one takes longer than most files of a run take to parse.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
