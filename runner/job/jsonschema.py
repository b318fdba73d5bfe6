"""The JSON schema of job files, for editors: with shorthands, and the models, solvers and metrics that are installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genrun.runner.job.matrix import AXES
from genrun.runner.job.options import Registries, describe, model_of, title
from genrun.runner.job.schema import JobSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def job_schema(registries: Registries | None = None) -> dict[str, Any]:
    """Return the JSON schema as plain data."""
    registries = registries or Registries.installed()
    schema = JobSpec.model_json_schema()
    parts = schema["$defs"]
    properties = schema["properties"]
    adapters, solvers = registries.adapters, registries.solvers
    properties["extends"] = {
        "type": "string",
        "description": "A job file that this one changes, relative to this one.",
    }
    _suggest(parts["ModelSpec"]["properties"]["adapter"], adapters.names())
    _suggest(parts["LaunchSpec"]["properties"]["kind"], registries.launchers.names())
    properties["score"]["items"] = _metric(registries.metrics.names())
    of_job = parts["SolverSpec"]["properties"]
    parts["SolverSpec"] = {"oneOf": [_solver(kind, solvers.get(kind), of_job) for kind in solvers.names()]}
    caches = registries.caches
    parts["CacheSpec"] = {"oneOf": [_solver(kind, caches.get(kind)) for kind in caches.names()]}
    names = {"type": "string", "description": "A name of `genrun models`, a folder, or a hub id (org/name)."}
    _shorthand(properties, "model", "ModelSpec", {**names, "examples": list(adapters.names())})
    _shorthand(properties, "solver", "SolverSpec", {"enum": list(solvers.names())})
    _shorthand(properties, "cache", "CacheSpec", {"enum": list(caches.names())})
    _shorthand(properties, "launch", "LaunchSpec", {"enum": list(registries.launchers.names())})
    _shorthand(properties, "parallel", "ParallelSpec", {"const": "auto"})
    seeds = {key: value for key, value in properties["seeds"].items() if key != "description"}
    short = [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\d+\s*\.\.\s*\d+$"}]
    properties["seeds"] = {"description": properties["seeds"]["description"], "anyOf": [*short, seeds]}
    file = {"type": "string", "description": "A .txt, .csv or .jsonl file."}
    prompts = {key: value for key, value in properties["prompts"].items() if key != "description"}
    properties["prompts"] = {"description": properties["prompts"]["description"], "anyOf": [file, prompts]}
    steps = parts["LaunchSpec"]["properties"]["then"]
    steps["items"] = {"anyOf": [parts["StepSpec"]["properties"]["step"], steps["items"]]}
    _shorthand(parts["OutputSpec"]["properties"], "previews", "PreviewSpec", {"type": ["boolean", "null"]})
    _shorthand(parts["SamplingSpec"]["properties"], "scheduler", "SchedulerSpec", {"type": ["string", "null"]})
    properties["matrix"]["propertyNames"] = {"pattern": rf"^({'|'.join(AXES)})(\..+)?$"}
    schema["required"] = ["model", "prompts"]
    # With `extends`, what is required may stand in the parent.
    required = {"required": schema.pop("required")}
    return {"$schema": DIALECT, **schema, "anyOf": [required, {"required": ["extends"]}]}


def _metric(names: Sequence[str]) -> dict[str, Any]:
    # Options of metrics are checked by genrun alone.
    kind = {"type": "object", "required": ["kind"], "properties": {"kind": {"enum": list(names)}}}
    return {"anyOf": [{"enum": list(names)}, kind]}


def _solver(kind: str, solver: type, of_job: Mapping[str, Any] | None = None) -> dict[str, Any]:
    schema = model_of(solver).model_json_schema()
    options = schema.get("properties", {})
    for option in describe(solver):
        options[option.name].pop("title", None)
        if option.help:
            options[option.name]["description"] = option.help
    if "workers" in options:
        told = options["workers"].get("description", "")
        options["workers"] = {"anyOf": [{"type": "integer"}, {"const": "auto"}], "default": "auto", "description": told}
    if of_job and "tolerance" in options:
        options["confidence"] = of_job["confidence"]
    return {
        "type": "object",
        "title": kind,
        "description": title(solver),
        "properties": {"kind": {"const": kind}, **options},
        "required": ["kind"],
        "additionalProperties": False,
    }


def _suggest(field: dict[str, Any], names: Any) -> None:
    field["enum"] = list(names)


def _shorthand(properties: dict[str, Any], name: str, part: str, text: dict[str, Any]) -> None:
    description = {key: value for key, value in properties[name].items() if key == "description"}
    properties[name] = {**description, "anyOf": [text, {"$ref": f"#/$defs/{part}"}]}
