"""The solvers still take the rounds and evaluations, and make the errors, that the golden tables hold.

Slack: another processor sums in another order, so that the model's outputs differ in their last bits. A state whose change
lies at the tolerance can then be accepted a round earlier or later: one round more or less (at most K evaluations), and an
error that moves with it. (With other kernels of the same processor, those of batches, nothing moved at all.) What changes
more than that has changed in the code.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.golden.tables import DECIDING, MODELS, PARALLEL, RENEW, WORKERS, Golden, path_of, read

pytestmark = pytest.mark.e2e

ROUNDS = 1
"""Mean rounds may differ by this."""
ERROR_SHARE, ERROR_LEAST = 0.35, 0.005
"""Mean RMSE may differ by this share of itself, or by this much."""


@pytest.fixture(scope="module")
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Golden]:
    """A model, measured as far as the tests ask."""
    found = Golden(request.param, tmp_path_factory.mktemp("golden") / "bench")
    yield found
    found.close()


@pytest.mark.parametrize("model", MODELS)
def test_every_solver_of_the_registry_has_its_rows(model: str) -> None:
    assert path_of(model).is_file(), f"there is no golden table of {model}: run `{RENEW}`"
    expected = {(solver, workers) for solver in PARALLEL for workers in WORKERS}
    _, rows = read(model)
    missing, left = sorted(expected - rows.keys()), sorted(rows.keys() - expected)
    assert not missing, f"the golden table of {model} lacks {missing}: run `{RENEW}`"
    assert not left, f"the golden table of {model} still has {left}: run `{RENEW}`"


@pytest.mark.parametrize("solver", PARALLEL)
@pytest.mark.parametrize("golden", MODELS, indirect=True)
def test_rounds_evaluations_and_errors_are_those_of_the_table(golden: Golden, solver: str) -> None:
    settings, rows = read(golden.model)
    changed = [name for name in DECIDING if settings[name] != golden.settings[name]]
    assert not changed, f"{' and '.join(changed)} of {golden.model} changed since its table was made: run `{RENEW}`"
    for found in golden.rows(solver):
        assert (solver, found.workers) in rows, f"no golden row of {solver} K = {found.workers}: run `{RENEW}`"
        known = rows[solver, found.workers]
        where = f"{golden.model} {solver} K = {found.workers}: {found} is not {known}; if meant, run `{RENEW}`"
        assert abs(found.mean_rounds - known.mean_rounds) <= ROUNDS, where
        assert abs(found.mean_nfe - known.mean_nfe) <= ROUNDS * found.workers, where
        assert abs(found.mean_rmse - known.mean_rmse) <= max(ERROR_SHARE * known.mean_rmse, ERROR_LEAST), where
