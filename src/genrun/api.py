"""The Python API: each verb of the command line is a function here, which prints nothing.

Functions return what they made and raise `GenrunError`; whoever wants to hear what they do passes a `Listener`. Nothing
here imports torch before it is needed.
"""

from genrun.runner.api.calibrating import Calibration, calibrate_tolerance
from genrun.runner.api.calls import ConsoleListener, Listener
from genrun.runner.api.housekeeping import ListedRun, Removal, collect_garbage, remove, runs
from genrun.runner.api.jobs import AnyJob, Forecast, calibrate, estimate_memory, forecast, load_job, plan
from genrun.runner.api.launching import Failure, Submission
from genrun.runner.api.measuring import Bench, RanksBench, bench, bench_ranks
from genrun.runner.api.nights import history, nightly, pin, unpin
from genrun.runner.api.prompts import ListedPrompt, PromptList, list_prompts
from genrun.runner.api.results import Report, compare, export, report, score, tabulate, verify
from genrun.runner.api.run import Run
from genrun.runner.api.state import AnyRun, Item, Status, cancel, status
from genrun.runner.api.submitting import Preview, decode, join, preview, rerun, retry, submit
from genrun.runner.errors import GenrunError

__all__ = [
    "AnyJob",
    "AnyRun",
    "Bench",
    "Calibration",
    "ConsoleListener",
    "Failure",
    "Forecast",
    "GenrunError",
    "Item",
    "ListedPrompt",
    "ListedRun",
    "Listener",
    "Preview",
    "PromptList",
    "RanksBench",
    "Removal",
    "Report",
    "Run",
    "Status",
    "Submission",
    "bench",
    "bench_ranks",
    "calibrate",
    "calibrate_tolerance",
    "cancel",
    "collect_garbage",
    "compare",
    "decode",
    "estimate_memory",
    "export",
    "forecast",
    "history",
    "join",
    "list_prompts",
    "load_job",
    "nightly",
    "pin",
    "plan",
    "preview",
    "remove",
    "report",
    "rerun",
    "retry",
    "runs",
    "score",
    "status",
    "submit",
    "tabulate",
    "unpin",
    "verify",
]
