"""The package as users get it: editable, wheel and sdist, each installed and run from another folder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, expect: int = 0) -> str:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == expect, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def fresh_environment(folder: Path) -> Path:
    """A new environment with the dependencies of this one, but not its genrun; returns its Python.

    A path in a .pth file is searched, while the .pth files in that path (the editable genrun's) are not read.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    here = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    Path(here, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def install(python: Path, *packages: str | Path) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "--quiet")
    run(*pip, "--no-deps", "--no-build-isolation", *packages, cwd=python.parent)


def check_runs(python: Path, folder: Path) -> None:
    """What every installation can do, from a folder that has nothing to do with it."""
    where = run(python, "-c", "import genrun.solvers; print(genrun.solvers.__file__)", cwd=folder)
    assert str(python.parents[1]) in where
    assert "submit" in run(python.parent / "genrun", "--help", cwd=folder)
    assert "demo-video" in run(python.parent / "genrun", "models", cwd=folder)
    assert len(json.loads(run(python.parent / "genrun", "plan", "jobs/demo.yaml", "--json", cwd=folder))) == 120


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return {"wheel": next(out.glob("*.whl")), "sdist": next(out.glob("*.tar.gz"))}


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_installed_package_runs_from_another_folder(kind: str, built: dict[str, Path], tmp_path: Path) -> None:
    python = fresh_environment(tmp_path / "environment")
    install(python, built[kind])
    check_runs(python, tmp_path)


def test_editable_package_runs_from_another_folder(tmp_path: Path) -> None:
    where = run(sys.executable, "-c", "import genrun.solvers; print(genrun.solvers.__file__)", cwd=tmp_path)
    assert Path(where.strip()).resolve() == ROOT / "solvers" / "__init__.py"
    assert "submit" in run(Path(sys.executable).parent / "genrun", "--help", cwd=tmp_path)


def test_adapterhub_beside_genrun_stays_untouched(built: dict[str, Path], tmp_path: Path) -> None:
    """`adapters` on PyPI is AdapterHub's: a wheel of ours with a folder of that name would overwrite its files."""
    python = fresh_environment(tmp_path / "environment")
    install(python, "adapters")
    (theirs,) = tmp_path.glob("environment/lib/python*/site-packages/adapters")
    before = digest(theirs)
    install(python, built["wheel"])
    assert digest(theirs) == before
    check_runs(python, tmp_path)


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.py"))
    }


def test_help_does_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from genrun.runner.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(m for m in ('torch', 'numpy', 'diffusers', 'pydantic', 'rich') if m in sys.modules))"
    )
    assert run(sys.executable, "-c", code, cwd=tmp_path).splitlines()[-1] == "[]"
