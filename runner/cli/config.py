"""`genrun config` and `genrun completion`: a user's defaults, and words that a shell completes."""

from __future__ import annotations

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, put, put_json, put_table, say
from genrun.runner.errors import UsageError

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_GENRUN_COMPLETE"


@click.command(cls=Verb, examples=("genrun config", "genrun config --write", "genrun config --json"))
@click.option("--write", is_flag=True, help="Write a commented file, unless there is one.")
@json_option
def config(write: bool, as_json: bool) -> None:
    """Show your defaults, or write a file of them.

    The file, ~/.config/genrun/config.yaml or what GENRUN_CONFIG names, holds the folder of runs, how much commands say, and
    values of `launch`, `parallel` and `output` for jobs that do not give them: nothing that changes pictures. GENRUN_RUNS
    overrules its folder of runs; job files and the command line overrule everything. With --write, prints the file's path.
    """
    from genrun.runner.api.config import COMMENTED, config_path, read_config
    from genrun.runner.job.tree import bare
    from genrun.runner.job.yaml import scalar
    from genrun.runner.store.files import atomic_write

    if write:
        path = config_path()
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path}: is there already.", remedy="genrun config shows what it says.")
        atomic_write(path, COMMENTED.encode())
        put(str(path))
        return
    found = read_config()
    rows = [(name, getattr(found, name), str(found.origins.get(name, "default"))) for name in ("runs", "talk")]
    if found.job is not None:
        for section, keys in found.job.data.items():
            rows += [(f"{section}.{key}", bare(value), str(value.origin)) for key, value in keys.data.items()]
    if as_json:
        put_json(
            {"path": str(found.path), "values": {name: {"value": value, "from": place} for name, value, place in rows}}
        )
        return
    put_table(("default", "value", "from"), [(name, scalar(value), place) for name, value, place in rows])
    say(f"{found.path}{'' if found.path.is_file() else ': not there; genrun config --write makes one'}")


@click.command(
    cls=Verb,
    examples=(
        "genrun completion bash > ~/.local/share/bash-completion/completions/genrun",
        'eval "$(genrun completion zsh)"',
        "genrun completion fish > ~/.config/fish/completions/genrun.fish",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what completes genrun's words in a shell.

    Verbs and options are completed, and the names of job files, runs, solvers, caches and models.
    """
    from click.shell_completion import get_completion_class

    from genrun.runner.cli import main

    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(main, {}, "genrun", VARIABLE)
    # Not source(): it starts bash to look at its version, which is not the shell that reads this.
    put((made.source_template % made.source_vars()).strip())
