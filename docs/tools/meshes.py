"""Writes the tables of docs/meshes.md of what stacks, by the rules that jobs are checked by.

python docs/tools/meshes.py docs/meshes.md      (or: make docs)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from genrun.adapters.caches import registry
from genrun.adapters.caches.contract import split_refusal
from genrun.adapters.parallel.support import BATCH, DOUBLED, TOKENS, TWICE, refusals, splits
from genrun.adapters.pipeline.denoisers import PACKAGES, TRANSFORMERS, unsuited

BEGIN, END = "<!-- what stacks: written by `make docs` -->", "<!-- end of what stacks -->"
EXACT, ROUNDED, REFUSED = "exact", "to rounding", "refused"
SPLITS = {
    "`cfg: 2`, two calls": frozenset[str](),
    "`cfg: 2`, one call": frozenset({BATCH}),
    "`ulysses`": frozenset({TOKENS}),
    "`ring`": frozenset({TOKENS}),
}
"""Column -> what of a call it splits among ranks."""
ON_PIPELINES = ("`cfg: 2`", "`ulysses`", "`ring`")


def tables() -> str:
    """Return the tables, as Markdown."""
    return "\n".join([*_by_mesh(), "", *_by_pipeline(), "", *_by_kernel()])


def fitted(text: str) -> str:
    """Return a page with its tables written anew. Raises ValueError where it has no place for them."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def _by_mesh() -> Iterator[str]:
    """Yield each cache on each mesh."""
    yield from _head("cache", "`data`, `time`, `elastic`", *SPLITS)
    for kind in _kinds():
        cells = [_on(kind, split) for split in SPLITS.values()]
        yield _row(f"`{kind}`", EXACT, *cells)


def _on(kind: str, split: frozenset[str]) -> str:
    if split_refusal(kind, registry.get(kind), split):
        return REFUSED
    return ROUNDED if split else EXACT


def _by_pipeline() -> Iterator[str]:
    """Yield the caches of each pipeline, and which of them its meshes refuse."""
    yield from _head("pipeline", "guidance", "caches", *(f"not with {axis}" for axis in ON_PIPELINES))
    for pipeline, transformer in TRANSFORMERS.items():
        kinds = [kind for kind in _kinds() if transformer in registry.get(kind).models]
        if kinds:
            guided = "one call" if pipeline in DOUBLED else "two calls" if pipeline in TWICE else "embedded"
            yield _row(f"`{pipeline}`", guided, ", ".join(kinds), *_left_out(pipeline, kinds))


def _left_out(pipeline: str, kinds: list[str]) -> Iterator[str]:
    for axis in ("cfg", "ulysses", "ring"):
        if list(refusals(pipeline, **{axis: 2})):
            yield "any: the mesh is refused"
            continue
        split = splits(pipeline, **{axis: 2})
        yield ", ".join(kind for kind in kinds if split_refusal(kind, registry.get(kind), split)) or "-"


def _by_kernel() -> Iterator[str]:
    """Yield attention kernels by transformer: they change neither what a cache leaves out nor what a mesh splits."""
    kernels = [kernel for kernel in PACKAGES if kernel != "sparge"]
    yield from _head("transformer", *(f"`attention: {kernel}`" for kernel in kernels))
    for transformer in sorted({name for name in TRANSFORMERS.values() if name}):
        cells = [REFUSED if unsuited(kernel, transformer) else "any cache, any mesh" for kernel in kernels]
        yield _row(f"`{transformer}`", *cells)


def _kinds() -> list[str]:
    return [kind for kind in registry.names() if kind != registry.NONE]


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield "|---" * len(names) + "|"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(fitted(page.read_text(encoding="utf-8")), encoding="utf-8")
