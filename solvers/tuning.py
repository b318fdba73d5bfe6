"""The tuned numbers of `collocation`, each with its reason.

Measured on the demo models with N = 50, guidance 5 and 8 to 32 samples, where nothing else is said; other models named here
are those of tests/bench/zoo that are for tuning. Rounds are compared at about equal error of the final latents.
tests/bench/README.md has the tables, and what was tried without gain.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tuning:
    """Constants of the loop, of the model of the Jacobian J, and of the step-size control."""

    # The loop, collocation.py:

    settled_share: float = 0.25
    """RMS change of a state that counts as settled, as a share of the tolerance.

    At equal error rounds hardly depend on it (five models, four and eight workers: 6 % fewer to 7 % more than at 0.7). What
    a tolerance means does: with four and eight workers 19 and 6 % of the samples of unet-edm kept one of 0.05 at 0.7, 69 and
    81 % at 0.35, and all of them at 0.25.
    """
    probe_size: float = 0.05
    """RMS of a probe's move, as a share of the state's.

    Small, as for a difference quotient. None of the sizes swept changed the rounds by more than 3 %.
    """
    stiff_gain: float = 0.2
    """Share of an error that must come back over a window for probes to be worth their workers.

    Closed-form problems that are not stiff take up to a round more with probes than without. At 0.2 this test costs the
    demo models nothing, at 0.4 2 % more rounds, at 0.8 5 %.
    """
    loose_tolerance: float = 0.02
    """Tolerance from which `first_gap` is taken where no slope is known; below it single steps. A gap of two leaves an error
    of about 0.01.

    At .05 it takes up to 8 % more rounds at an error of .02 (unconditional, eight workers) and 4 % fewer (demo-video).
    """

    # The model of J, jacobian.py:

    prior_gain: float = 0.3
    """Gain b of J in a direction that nothing is known of, before any secant.

    The moves that a first correction leaves had gains of 0 to 0.8; a denoiser's gain is between 0 at high noise and 1 at
    none. A Gaussian's gain, which depends on the noise level, took no fewer rounds.
    """
    prior_weight: float = 1.0
    """Number of secants that the prior counts as, once there are some. No sweep is on record."""
    unseen_share: float = 0.6
    """Gain b of the unseen directions, as a share of the mean gain of the secants.

    Less than one, since secants were chosen for their large changes. The model then missed 0.56 (demo-image) and 0.64
    (demo-video) of recorded changes, instead of 0.63 and 0.71 with b held at the prior.
    """
    ridge: float = 0.1
    """Ridge of a secant measured at the step where it is used, as a share of its weight.

    None of the ridges swept changed the rounds by more than 3 %.
    """
    drift: float = 10.0
    """Growth of that ridge, in ridges, while the ratio of signal to noise grows e-fold, because J turns with it.

    With distance in log SNR instead of in steps the model missed 0.52 instead of 0.56 of recorded changes (demo-image). None
    of the rates swept changed the rounds by more than 3 %.
    """
    response_weight: float = 3.0
    """Weight of the inner product along the secants' changes, y, against the plain one.

    With the plain one alone 10.2 rounds instead of 10.1 (demo-image), and 9.4 instead of 9.0 (demo-video). None of the
    weights swept changed the rounds by more than 3 %.
    """
    first_look_weight: float = 0.2
    """Weight of an innovation at a node evaluated for the first time against one of a secant.

    With such innovations 8.1 to 8.2 rounds instead of 8.3 (demo-image), and 7.4 instead of 7.6 (demo-video).
    """
    unknown_misfit: float = 4.0
    """Relative error that the model of J is taken to have while no round has shown one.

    Guided predictions change by 4 to 9 times the move in the first half of the trajectory. No sweep is on record.
    """
    unknown_amplification: float = 3.0
    """How many times an error of a state is taken to be in the picture while no secant is known, with two workers or more.

    Four workers learn a round later than eight do with their probes. 3 instead of 8 % of the samples of a hard model (faces,
    no guidance) then miss a tolerance of .05, in 1.6 % more rounds; at 2 7 %, at 6 1 % in 5 % more. dit-v takes as many
    rounds at equal mean error with four workers, and 6 % more with two.
    """
    most_gain: float = 1e9
    """Gain, or RMS of a move, from which on a secant is not learned: no model's, and its products overflow float32."""
    rounding: float = 1e-6
    """Size of a probe's direction, as a share of the largest one's, that is but the rounding of what it is mixed from."""
    least_level: float = 1e-3
    """Signal and noise level below which their ratio is cut off: it has no logarithm at the ends of the grid."""

    # The step-size control, step_size.py:

    budget_between: float = 0.1
    """Error that one gap between evaluated nodes may add to the state, as a share of the tolerance.

    0.05 takes 1 to 5 % more rounds on five models with four and eight workers (demo-image with four: 2 % fewer).
    """
    budget_ahead: float = 0.25
    """The same where nothing is known ahead: larger, since stepping again across the gap takes most of it back.

    Twice as much takes as many rounds at equal error; its error then exceeds the tolerance on unet-edm with one worker.
    """
    most_missed: float = 2.0
    """Error of the state, in tolerances, from which on a gap to a front is rejected: by its foretold prediction's error.

    Of dit-v's and unet-edm's gaps with one worker 99 % stay below 1 to 3. At 2 unet-edm takes 6 % more evaluations at a
    tolerance of 0.05, with 0.03 instead of 0.08 as the largest error, and dit-v none. On a guided Gaussian that is stiff at
    small noise levels errors of 0.3 to 130 tolerances become 0.03 to 11.
    """
    most_between: float = 0.25
    """Error of the state, in tolerances, from which on a gap between evaluated nodes is rejected: by the curvature there.

    The gap that is taken before any slope is known would err as much at a tolerance of .025 as at .1. A hard model (faces,
    guidance 5, N = 20, eight workers) makes a mean error of .009 in 8.1 rounds with it, and of .022 in 7.7 without; 0 and
    10 % of its samples miss .05. At .5 it is .018 in 7.8, and 6 % miss; at .15 that model takes 3 % more rounds with N = 50.
    dit-v takes as many as without.
    """
    window_share: float = 1 / 3
    """Share of the trajectory that a window may span: gaps are at most that over K, rounded up.

    Windows of half or all of it gained nothing, and the states between nodes cost memory.
    """
    first_gap: int = 2
    """Longest gap before any curvature is known. The first step is always taken alone.

    A first prediction can change by half in one step, and decides between pictures: with that step alone 94 instead of 62 %
    of the samples are within the tolerance (demo-video, guidance 9). Gaps of 1, 3, 3 or 1, 4, 4 save 1 to 13 % of the rounds
    on demo-image, and cost 8 % on demo-video and half of the samples at guidance 9; 1, 2, 4 is worse on both.
    """
    fading_power: float = 0.15
    """Power of the signal level that an error may grow with.

    1 takes up to three quarters more evaluations at equal error with one worker (unconditional; dit-v and unet-edm as many),
    and a tenth to a quarter more rounds with eight without guidance. With guidance 0.5 takes 7 % more rounds.
    """
    least_signal: float = 0.1
    """Signal level below which an error need be no smaller: it is close to 0 at the first steps. No sweep is on record."""


TUNING = Tuning()
