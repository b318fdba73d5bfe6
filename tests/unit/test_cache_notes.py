"""A cache that left out nothing is told, with its solver, the likely cause and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from genrun.runner import notes
from genrun.runner.job.plan import WorkItem
from genrun.runner.report.sections.summary import saved_blocks
from genrun.runner.store.records import Record, SamplerStats
from genrun.runner.worker.sample import cache_notes

TOCA = {"kind": "toca", "interval": 2, "drift": 0.05}
ITEM = WorkItem("a", "p", "a red circle", None, 0, {}, {"steps": 50}, {"kind": "ropa", "workers": 8}, cache=TOCA)
NOTHING = SamplerStats(50, 14, 98, blocks=784.0, blocks_full=784.0)


@pytest.mark.parametrize(
    ("cache", "solver", "cause"),
    [
        (TOCA, {"kind": "ropa", "workers": 8}, "moved by no more than drift 0.05"),
        ({"kind": "first_block", "threshold": 0.01}, {"kind": "ropa", "workers": 8}, "no more than threshold 0.01"),
        ({"kind": "first_block", "threshold": 0.01}, {"kind": "sequential"}, "changed by more than threshold 0.01"),
        (
            {"kind": "taylorseer", "warmup": 60},
            {"kind": "sequential"},
            "none of 50 steps lay where its options (warmup 60)",
        ),
        ({"kind": "mine"}, {"kind": "ropa", "workers": 8}, "evaluates most steps once or twice"),
    ],
)
def test_the_note_names_cache_solver_and_cause(cache: dict[str, object], solver: dict[str, object], cause: str) -> None:
    (note,) = cache_notes(replace(ITEM, cache=cache, solver=solver), NOTHING)
    assert note.kind == notes.CACHE_SAVED_NOTHING
    assert note.message.startswith(f"cache {cache['kind']} left out none of 784 blocks on solver {solver['kind']}: ")
    assert cause in note.message


@pytest.mark.parametrize(
    ("cache", "stats"),
    [
        (TOCA, replace(NOTHING, blocks=783.0)),
        ({}, NOTHING),
        (TOCA, replace(NOTHING, blocks=0.0, blocks_full=0.0)),
    ],
)
def test_nothing_is_told_where_something_was_saved_or_nothing_was_counted(
    cache: dict[str, object], stats: SamplerStats
) -> None:
    assert cache_notes(replace(ITEM, cache=cache), stats) == ()


def test_the_remedy_is_told_with_the_number_of_items() -> None:
    record = Record("a", "done", sampler=NOTHING, notes=cache_notes(ITEM, NOTHING))
    (told,) = map(str, notes.group_notes([record]))
    assert told.startswith("1 item: the cache left out no block")
    assert "Leave cache out" in told


def test_a_run_without_plain_items_tells_what_a_cache_saved_of_its_own_evaluations() -> None:
    records = {"a": Record("a", "done", sampler=replace(NOTHING, blocks=588.0))}
    assert saved_blocks([ITEM], records) == {"a": 0.25}
    older = {"a": Record("a", "done", sampler=replace(NOTHING, blocks=588.0, blocks_full=0.0))}
    assert saved_blocks([ITEM], older) == {}
