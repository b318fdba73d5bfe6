"""Types of the fields of a job file: the values that they take, and what is wanted where another one stands."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

TIME_PATTERN = r"([0-9]{1,8}|[0-9]{1,6}:[0-9]{2}|[0-9]{1,5}:[0-9]{2}:[0-9]{2}|[0-9]{1,4}-[0-9]{1,2}(:[0-9]{2}){0,2})"
CLOCK_PATTERN = r"([01][0-9]|2[0-3]):[0-5][0-9]"
PERCENT_PATTERN = r"[0-9]{1,9}(\.[0-9]{1,9})?%"
GPUS_PATTERN = r"([A-Za-z0-9_.-]{1,80}:)?[1-9][0-9]{0,5}"
REVISION_PATTERN = r"[A-Za-z0-9][\w./+-]{0,199}"
VARIANT_PATTERN = r"[\w-]{1,80}"
LORA_NAME_PATTERN = r"[\w-]{1,80}"
WANTED = "wanted"
"""The type of pydantic's errors whose message says what is wanted."""

MAX_COUNT = 1_000_000
"""Largest value of a count: a plan has no more items."""

MAX_STEPS, MAX_SIDE, MAX_FRAMES, MAX_FPS, MAX_GUIDANCE = 100_000, 16_384, 65_536, 1_000, 10_000
"""Largest values of sampling fields: more than any model makes, and few enough to be multiplied."""

MAX_INPUTS = 16
"""Most pictures of one field of a prompt: no model looks at more."""

MAX_RANKS = 100_000
"""Largest number of ranks: more than any cluster has GPUs."""

MAX_NAME = 255
"""Bytes of a file's name, on the usual file systems."""

MAX_PATH = 3_800
"""Bytes of a folder's path: what file systems take, less what a run's longest file name needs."""

DTYPES = ("float32", "bfloat16", "float16")


def _count_or_auto(value: Any) -> Any:
    if value == "auto" or (type(value) is int and 1 <= value <= MAX_RANKS):
        return value
    if type(value) is int and value > MAX_RANKS:
        raise PydanticCustomError(WANTED, "at most {most}, or auto", {"most": MAX_RANKS})
    raise PydanticCustomError(WANTED, "a whole number of at least 1, or auto")


def _gpus(value: Any) -> Any:
    if (type(value) is int and 0 <= value <= MAX_COUNT) or (
        isinstance(value, str) and re.fullmatch(GPUS_PATTERN, value)
    ):
        return value
    raise PydanticCustomError(WANTED, "a whole number, or a type and a number such as h200:8")


def _time(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(TIME_PATTERN, value):
        return value
    raise PydanticCustomError(WANTED, 'a time in quotes such as "04:00:00" or "2-12:00:00" (days-hours)')


def _option(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise PydanticCustomError(WANTED, "text, a number, true for a flag, or null to leave the option out")


def _dtype(value: Any) -> Any:
    """Return one number type, or a mapping of components to them."""
    named = value.values() if isinstance(value, dict) and value else [value]
    if all(isinstance(name, str) and name in DTYPES for name in named):
        return value
    raise PydanticCustomError(WANTED, f"{', '.join(DTYPES[:-1])} or {DTYPES[-1]}")


def _variant(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(VARIANT_PATTERN, value, re.ASCII):
        return value
    raise PydanticCustomError(WANTED, "the part of the files' names such as fp16 in model.fp16.safetensors")


def _folders(value: Any) -> Any:
    """Return folders as a tuple, of one or of a list of them."""
    given = value if isinstance(value, list | tuple) else [value]
    if all(isinstance(each, str) and each for each in given):
        return tuple(given)
    raise PydanticCustomError(WANTED, "a folder or a hub id, or a list of them")


def _components(value: Any) -> Any:
    if isinstance(value, dict) and all(isinstance(each, str | None) and each != "" for each in value.values()):
        return value
    raise PydanticCustomError(
        WANTED, "a mapping such as {vae: FOLDER}, with null for a component that the pipeline is to go without"
    )


def _lora_name(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(LORA_NAME_PATTERN, value, re.ASCII):
        return value
    raise PydanticCustomError(WANTED, "a name of up to 80 letters, digits, `_` and `-`")


def _weight_name(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[^/\\\0]{1,255}", value) and value not in (".", ".."):
        return value
    raise PydanticCustomError(WANTED, "the name of a file")


def _subfolder(value: Any) -> Any:
    if isinstance(value, str) and len(value) <= MAX_NAME and not {"..", ".", ""} & set(value.split("/")):
        return value
    raise PydanticCustomError(WANTED, "a folder below, such as models")


def _revision(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(REVISION_PATTERN, value, re.ASCII) and ".." not in value:
        return value
    raise PydanticCustomError(WANTED, "a branch, a tag or a commit")


def _compile(value: Any) -> Any:
    if isinstance(value, bool) or value == "regional":
        return value
    raise PydanticCustomError(WANTED, "true, false or regional")


def _limit(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if is_number or (isinstance(value, str) and re.fullmatch(PERCENT_PATTERN, value)):
        return value
    raise PydanticCustomError(WANTED, "a number, or a percentage such as 0.5%")


def _allowance(value: Any) -> Any:
    if isinstance(value, int | float) and value < 0:
        raise PydanticCustomError(WANTED, "at least 0, or a percentage such as 0.5%")
    return _limit(value)


def _clock(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(CLOCK_PATTERN, value):
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


def _folder(value: str) -> str:
    """Return a folder's path, with `~` filled in, in which files can be made."""
    if "\0" in value:
        raise PydanticCustomError(WANTED, "a path without NUL characters")
    try:
        folder = Path(value).expanduser()
    except RuntimeError:
        raise PydanticCustomError(WANTED, "a folder; there is no such user's home") from None
    encoded = os.fsencode(folder.absolute())
    if len(encoded) > MAX_PATH or any(len(name) > MAX_NAME for name in encoded.split(b"/")):
        limits = {"path": f"{MAX_PATH:,}", "name": MAX_NAME}
        raise PydanticCustomError(WANTED, "a path of at most {path} bytes, each name of at most {name}", limits)
    return str(folder)


def _inputs(value: Any) -> Any:
    several = value if isinstance(value, list | tuple) else [value]
    if not 0 < len(several) <= MAX_INPUTS or not all(isinstance(each, str) and each for each in several):
        wanted = "the name of a file, or a list of up to {most} of them"
        raise PydanticCustomError(WANTED, wanted, {"most": MAX_INPUTS})
    return tuple(value) if isinstance(value, list) else value


CountOrAuto = Annotated[
    int | Literal["auto"], BeforeValidator(_count_or_auto, json_schema_input_type=int | Literal["auto"])
]
Dtype = Literal["float32", "bfloat16", "float16"]
Dtypes = Annotated[str | dict[str, str], BeforeValidator(_dtype, json_schema_input_type=Dtype | dict[str, Dtype])]
Variant = Annotated[str, BeforeValidator(_variant, json_schema_input_type=str)]
Folders = Annotated[tuple[str, ...], BeforeValidator(_folders, json_schema_input_type=str | list[str])]
Components = Annotated[
    dict[str, str | None], BeforeValidator(_components, json_schema_input_type=dict[str, str | None])
]
LoraName = Annotated[str, BeforeValidator(_lora_name, json_schema_input_type=str)]
WeightName = Annotated[str, BeforeValidator(_weight_name, json_schema_input_type=str)]
Subfolder = Annotated[str, BeforeValidator(_subfolder, json_schema_input_type=str)]
Scale = Annotated[float, Field(allow_inf_nan=False, ge=-MAX_GUIDANCE, le=MAX_GUIDANCE)]
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
Revision = Annotated[str, BeforeValidator(_revision, json_schema_input_type=str)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Text = Annotated[str, Field(min_length=1)]
Folder = Annotated[Text, AfterValidator(_folder)]
Inputs = Annotated[str | tuple[str, ...], BeforeValidator(_inputs, json_schema_input_type=str | list[str])]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Guidance = Annotated[float, Field(ge=0, le=MAX_GUIDANCE, allow_inf_nan=False)]
FrameCount = Annotated[int, Field(ge=1, le=MAX_FRAMES)]
