"""One section of a document on its own, for checks that need it before the whole is right."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from genrun.runner.job.tree import Value, bare

Section = TypeVar("Section", bound=BaseModel)


def section(root: Value, name: str, schema: type[Section]) -> Section | None:
    """Return a section, or None when it is wrong or, without defaults, missing."""
    value = root.get(name)
    data = {} if value is None or value.data is None else bare(value)
    if (value is None and name == "model") or (value is not None and value.wrong):
        return None
    try:
        return schema.model_validate_json(json.dumps(data), strict=True)
    except ValidationError:
        return None
