"""The values that fields of a job file take, and what is wanted where another one stands."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

TIME_PATTERN = r"^(\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+(:\d\d){0,2})$"
CLOCK_PATTERN = r"^([01]\d|2[0-3]):[0-5]\d$"
PERCENT_PATTERN = r"^\d+(\.\d+)?%$"
GPUS_PATTERN = r"^([A-Za-z0-9_.-]+:)?[1-9]\d{0,5}$"
WANTED = "wanted"
MAX_COUNT = 1_000_000
DTYPES = ("float32", "bfloat16", "float16")


def _count_or_auto(value: Any) -> Any:
    if value == "auto" or (type(value) is int and 1 <= value <= MAX_COUNT):
        return value
    raise PydanticCustomError(WANTED, "a whole number of at least 1, or auto")


def _gpus(value: Any) -> Any:
    if (type(value) is int and 0 <= value <= MAX_COUNT) or (isinstance(value, str) and re.match(GPUS_PATTERN, value)):
        return value
    raise PydanticCustomError(WANTED, "a whole number, or a type and a number such as h200:8")


def _time(value: Any) -> Any:
    if isinstance(value, str) and re.match(TIME_PATTERN, value):
        return value
    raise PydanticCustomError(WANTED, 'a time in quotes such as "04:00:00" or "2-12:00:00" (days-hours)')


def _option(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise PydanticCustomError(WANTED, "text, a number, true for a flag, or null to leave the option out")


def _dtype(value: Any) -> Any:
    """One number type, or a mapping of components to them."""
    named = value.values() if isinstance(value, dict) and value else [value]
    if all(isinstance(name, str) and name in DTYPES for name in named):
        return value
    raise PydanticCustomError(WANTED, f"{', '.join(DTYPES[:-1])} or {DTYPES[-1]}")


def _compile(value: Any) -> Any:
    if isinstance(value, bool) or value == "regional":
        return value
    raise PydanticCustomError(WANTED, "true, false or regional")


def _limit(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if is_number or (isinstance(value, str) and re.match(PERCENT_PATTERN, value)):
        return value
    raise PydanticCustomError(WANTED, "a number, or a percentage such as 0.5%")


def _allowance(value: Any) -> Any:
    if isinstance(value, int | float) and value < 0:
        raise PydanticCustomError(WANTED, "at least 0, or a percentage such as 0.5%")
    return _limit(value)


def _clock(value: Any) -> Any:
    if isinstance(value, str) and re.match(CLOCK_PATTERN, value):
        return value
    raise PydanticCustomError(WANTED, 'a time of the day in quotes such as "02:00"')


def _metric(value: Any) -> Any:
    if value and isinstance(value, str):
        return value
    if isinstance(value, dict) and value.get("kind") and isinstance(value["kind"], str):
        return value
    raise PydanticCustomError(
        WANTED, "the name of a metric, or a mapping of its kind and options such as {kind: clip_score, frames: 16}"
    )


CountOrAuto = Annotated[
    int | Literal["auto"], BeforeValidator(_count_or_auto, json_schema_input_type=int | Literal["auto"])
]
Dtype = Literal["float32", "bfloat16", "float16"]
Dtypes = Annotated[str | dict[str, str], BeforeValidator(_dtype, json_schema_input_type=Dtype | dict[str, Dtype])]
Compile = Annotated[
    bool | Literal["regional"], BeforeValidator(_compile, json_schema_input_type=bool | Literal["regional"])
]
Gpus = Annotated[int | str, BeforeValidator(_gpus, json_schema_input_type=int | str)]
Time = Annotated[str, BeforeValidator(_time, json_schema_input_type=str)]
Clock = Annotated[str, BeforeValidator(_clock, json_schema_input_type=str)]
Limit = Annotated[float | str, BeforeValidator(_limit, json_schema_input_type=float | str)]
Allowance = Annotated[float | str, BeforeValidator(_allowance, json_schema_input_type=float | str)]
Options = dict[str, Annotated[Any, BeforeValidator(_option, json_schema_input_type=str | int | float | bool | None)]]
MetricSpec = Annotated[Any, BeforeValidator(_metric, json_schema_input_type=str | dict[str, Any])]
Attention = Literal["native", "flash", "sage", "sparge"]
Positive = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Text = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
