"""The nights of a job: what came of each, kept in its run folder and listed in one SQLite file beside the runs.

`read(base, job)` returns `Night` values, oldest first, each with its means and gates: what a report draws.
"""

from genrun.runner.history.index import read, rebuild, record
from genrun.runner.history.night import Attempt, Measure, Night, NightGate

__all__ = ["Attempt", "Measure", "Night", "NightGate", "read", "rebuild", "record"]
