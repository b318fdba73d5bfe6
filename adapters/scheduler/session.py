"""A pipeline call as a coroutine: the points that its loop evaluates, and the solvers that get the outputs."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genrun.adapters.caches.manager import CacheManager
from genrun.adapters.errors import RefusedError
from genrun.adapters.parallel.exchange import Exchange, Notes
from genrun.adapters.scheduler.between_steps import Casts, casts_between
from genrun.adapters.scheduler.compatibility import check_begin, is_another
from genrun.adapters.scheduler.joined import JoinedScheduler
from genrun.adapters.scheduler.kept import Kept
from genrun.adapters.scheduler.noise import Generators, NoiseLevels, Strays, noise_levels
from genrun.adapters.scheduler.replay import Lane, Replay
from genrun.adapters.scheduler.rows import CallProgress, Evaluation, OnRound, Row, places, x0_of
from genrun.adapters.shapes import AnyLatents, Latents, Output, Rows, Sample
from genrun.solvers.contract import Solution, Solver, guarded
from genrun.solvers.sequential import Sequential

BLOCK_PARTS = 10**6
"""Block evaluations are summed over ranks in millionths."""
RANK = 1 << 32
"""Counts a rank in a sum of their notes, above the note itself."""


class Session:
    """The life of one pipeline call. Every rank of the exchange runs it in step.

    Args:
        scheduler: the real scheduler, after `set_timesteps`.
        solver: how to sample.
        exchange: who evaluates what.
        on_round: called after each round.
        manager: of what the model's blocks computed before, and of how many were computed.
        kept: what the loop keeps beside its latents; None where steps are taken in order.

    Attributes:
        on_left: called when the loop has ended, what it does after its last step done.
        beside: final latents of a loop that steps several things at once, but for the first: the sound's.
    """

    def __init__(
        self,
        scheduler: Any,
        solver: Solver,
        exchange: Exchange,
        on_round: OnRound | None = None,
        manager: CacheManager | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.manager, self.kept = manager, kept
        if manager is not None:
            manager.begin()
        self.scheduler, self.solver, self.exchange, self.on_round = scheduler, solver, exchange, on_round
        self.window = range(len(scheduler.timesteps))
        self.rounds = self.nfe = 0
        self.levels: NoiseLevels
        self.blocks: tuple[float, float] = (0, 0)
        self._noted = (0, 0)
        self.rows: list[Row] = []
        self.replay: Replay | None = None
        self.index = self.turn = self.evaluations = 0
        self._looked: tuple[int, int] | None = None
        self._left = False
        self._queue: list[Evaluation] = []
        self._outputs: list[Tensor] = []
        self._round: list[Evaluation] = []
        self._handed: Tensor | None = None
        self._came_back: list[tuple[Tensor, Tensor]] = []
        self._casts: Casts | None = None
        self._new_casts: Casts | None = None
        self._owners: list[int] = []
        self.blends = False
        self.strays: Strays | None = None
        self.by_step: dict[int, dict[str, Any]] = {}
        self.on_left: Callable[[], None] | None = None
        self.beside: tuple[Tensor, ...] = ()

    @property
    def num_steps(self) -> int:
        """N, of the window that is sampled."""
        return len(self.window)

    @property
    def is_open(self) -> bool:
        """True from the first step on."""
        return bool(self.rows)

    @property
    def is_stochastic(self) -> bool:
        """True when steps are known to draw noise."""
        return self.replay is not None and self.replay.stochastic

    @property
    def is_followed(self) -> bool:
        """True in a loop over the timesteps that tells where it is."""
        return self._looked is not None and not self._left

    @property
    def place(self) -> int:
        """The place of the point in work in the scheduler's grid."""
        return self.window.start + self.index

    @property
    def ahead(self) -> int:
        """Steps between the point in work and the one at which a loop that takes them in turn would be by now."""
        if self._left or not self.is_open:
            return 0
        place, evaluations = self._looked or (self.window.start, 0)
        return self.place - (place + self.evaluations - evaluations)

    def look_at(self, window: range, place: int) -> None:
        """Note that the loop, not yet stepping, has come to a place of its window."""
        self._left, self.window = False, range(place, window.stop)
        self._looked = place, self.evaluations
        if self.kept is not None:
            self.kept.look()

    def look_again(self) -> int:
        """Note that the loop takes up the point in work; return its place."""
        self._looked = self.place, self.evaluations
        if self.kept is not None:
            self.kept.recall(self.index)
        return self.place

    def leave(self) -> None:
        """Note that the loop has ended, or was none: tables are read as they are again."""
        self._left = True
        if self.kept is not None and self.done:
            self.kept.recall(self.num_steps)
        if self.done and self.on_left is not None:
            self.on_left()
        if not self.is_open:
            self._looked, self.window = None, range(len(self.scheduler.timesteps))

    def stop(self) -> None:
        """Note that the loop takes no more steps, as one does whose pipeline was interrupted.

        Raises:
            RefusedError: what it holds then need not be a state of the trajectory.
        """
        if not isinstance(self.solver, Sequential) or self.exchange.size > 1:
            raise RefusedError(
                f"the pipeline was interrupted before step {self.index + 1} of {self.num_steps}, where its loop may hold a "
                "guess of the solver; interrupt it under solver sequential in one process, or raise an error"
            )
        self._left = True

    @property
    def done(self) -> bool:
        """True when every sample has its solution."""
        return bool(self.rows) and all(row.solution is not None for row in self.rows)

    @property
    def solutions(self) -> list[Solution]:
        """The solution of each sample of the batch, once done."""
        found = [row.solution for row in self.rows if row.solution is not None]
        done, asked = self.blocks
        return [replace(solution, blocks=done, blocks_full=asked) for solution in found] if asked else found

    @property
    def others(self) -> tuple[Any, ...]:
        """The rest of what the scheduler's step returns: the last step's once done, until then as many stand-ins."""
        assert self.replay is not None
        if not self.done:
            return (self._handed,) * self.replay.others
        found = [row.lane.last for row in self.rows]
        each = zip(*(last.others for last in found if last is not None), strict=True)
        return tuple(self._stack(list(parts)) if isinstance(parts[0], Tensor) else parts[0] for parts in each)

    def answer(
        self, output: Tensor, x: Tensor, generator: Generators, arguments: dict[str, Any], timestep: Any = None
    ) -> Tensor:
        """Take the output of the evaluation that the loop has just made; returns the latents for the next one.

        The latents are those of the next point of this rank, or the final ones when the session is done, in the dtype
        that the real scheduler returns.
        """
        self._check_order(timestep)
        self.evaluations += 1
        if self.rows:
            self._take_back(x, output)
            self._outputs.append(output)
        else:
            self._open(output, x, generator, arguments)
        while not self._queue:
            self._close_round()
            if self.done:
                self.exchange.end()
                if self.manager is not None:
                    self._count_blocks(self.manager, output)
                    self.manager.end()
                self.index = self.num_steps
                return self._hand_over(self.num_steps, self._stack([row.filler for row in self.rows]))
        evaluation = self._queue.pop(0)
        self.index, self.turn = evaluation.index, evaluation.turn
        return self._hand_over(evaluation.index, evaluation.x)

    def _check_order(self, timestep: Any) -> None:
        """Check that the loop goes from point to point, or that these happen to be in its own order."""
        if self._looked is not None and self._looked[1] == self.evaluations:
            return
        if self.is_followed:
            raise RefusedError(
                "this pipeline's loop steps more than once at a timestep, so that no step of the whole is there to choose; "
                "call it without genrun"
            )
        begins_elsewhere = not self.is_open and is_another(timestep, self.scheduler.timesteps[self.window.start])
        if begins_elsewhere or self.index != self.evaluations:
            raise RefusedError(
                "this pipeline's loop does not go over `scheduler.timesteps`, so that no solver can choose its next step; "
                "use solver sequential"
            )

    @property
    def final_dtype(self) -> torch.dtype:
        """The dtype that the loop gives to the final latents, as far as it has been seen."""
        assert self.replay is not None
        return self.replay.start_dtype if self.num_steps == 1 else self.replay.dtype

    def _hand_over(self, index: int, x: Latents) -> Latents:
        assert self.replay is not None
        self._handed = self.replay.as_held(max(index, 1), x)
        self.replay.show(index)
        return self._handed.clone()  # some loops write into their latents

    def _take_back(self, x: Latents, output: Output) -> None:
        """Note what the loop has made of the latents that it was handed. Raises RefusedError for another shape."""
        handed, self._handed = self._handed, None
        assert self.replay is not None and handed is not None
        if x.shape != handed.shape:
            raise RefusedError(
                f"this pipeline changes the shape of its latents between two steps ({tuple(handed.shape)} became "
                f"{tuple(x.shape)}); call it without genrun"
            )
        if output.dtype != self.replay.output_dtype:
            raise RefusedError(
                f"the model's output is {output.dtype} in step {self.index}, and was {self.replay.output_dtype} in the "
                "first: its dtype follows that of the latents; call the pipeline without genrun"
            )
        casts, explained = casts_between(handed, x)
        if casts is not None and casts != self._casts:
            self._new_casts = casts
        self._came_back.append((handed, handed if explained else x))

    def _open(self, output: Output, x: AnyLatents, generator: Generators, arguments: dict[str, Any]) -> None:
        """Start every sample's solver.

        A loop's first evaluation can only be that of x_start at step 0, which every solver asks for in its first round:
        all ranks make it at the same time, rank 0's is taken.
        """
        if self.manager is not None and self.manager.cache is not None and x.shape[0] > 1:
            raise RefusedError(
                f"a cache decides for all {x.shape[0]} samples of a batch at once, so that none is what it is alone; "
                "make them one at a time, or leave cache out"
            )
        if not x.is_floating_point():
            raise RefusedError(f"this pipeline samples {x.dtype} tokens, not latents; call it without genrun")
        check_begin(self.scheduler, self.window)
        leading = self.scheduler.real[0] if isinstance(self.scheduler, JoinedScheduler) else self.scheduler
        self.levels = noise_levels(leading).within(self.window)
        self.replay = Replay(self.scheduler, x, output, generator, arguments, self.window, self.by_step)
        for lane in self._lanes(x, output, generator, arguments):
            run = guarded(self.solver.solve(lane))
            self.rows.append(Row(lane, run, next(run), lane.x_start))
        self.exchange.begin(output, len(self.rows) * self.solver.workers)
        self._share_out()
        if self.exchange.rank == 0:
            self._queue.pop(0)
            self._outputs.append(output)
            self._came_back.append((x, x))
        elif self.manager is not None:
            self.manager.discard()

    def _lanes(self, x: Latents, output: Output, generator: Generators, arguments: dict[str, Any]) -> list[Lane]:
        """Make a problem for each sample; one with a generator of its own is stepped apart, so that its noise is its own."""
        assert self.replay is not None
        rows = range(x.shape[0])
        if not (self.replay.stochastic and isinstance(generator, list) and len({*generator}) == len(rows) > 1):
            return [Lane(self.replay, self.levels, x, row) for row in rows]
        parts = [(x[row : row + 1], output[row : row + 1], generator[row]) for row in rows]
        lanes = []
        for part in parts:
            self.replay.show(0)  # each begins with the memory of a scheduler that has not stepped yet
            lanes.append(
                Lane(Replay(self.scheduler, *part, arguments, self.window, self.by_step), self.levels, part[0], 0)
            )
        return lanes

    def _merge(self) -> list[Evaluation]:
        """Merge the rows' points into model calls: rows that ask for the same step share one, others are filled in."""
        asked = [{place: p.x for place, p in zip(places(row.points), row.points, strict=True)} for row in self.rows]
        wanted = sorted({place for points in asked for place in points})
        fillers = [row.filler for row in self.rows]
        return [
            Evaluation(
                *place, self._stack([points.get(place, filler) for points, filler in zip(asked, fillers, strict=True)])
            )
            for place in wanted
        ]

    @staticmethod
    def _stack(samples: list[Rows]) -> Rows:
        return samples[0] if len(samples) == 1 else torch.cat(samples)

    def _close_round(self) -> None:
        """Gather the round's outputs, let every solver go on, and take this rank's share of the next round."""
        exchange, count = self.exchange, len(self._round)
        gathered, notes = exchange.gather(self._outputs, count, self._check(), self._notes())
        self.blocks = (self.blocks[0] + notes[0], self.blocks[1] + notes[1])
        self._learn_casts(notes[2])
        if notes[3] or self.blends:  # that a state came back as it was is worth knowing too
            self._learn_blends(gathered[0])
        outputs = {(e.index, e.turn): output for e, output in zip(self._round, gathered, strict=True)}
        self._outputs, self._round, self._came_back, gathered = [], [], [], []
        self.rounds += 1
        self.nfe += count
        first = self.rows[0].points[:1]
        predict = partial(x0_of, self.scheduler, self.levels, *first, outputs[first[0].index, 0]) if first else None
        for number, row in enumerate(self.rows):
            if row.points:
                take = outputs.pop if len(self.rows) == 1 else outputs.__getitem__
                row.send([take(place)[number : number + 1] for place in places(row.points)])
        self._share_out()
        self._report(predict)

    def _learn_casts(self, note: int) -> None:
        """Round from now on as the loop does; `note` is the sum of the ranks' that have seen it, each as in `_notes`."""
        if not note:
            return
        self._casts, self._new_casts = Casts.of_number(note % RANK // (note // RANK)), None
        for replay in filter(None, {self.replay, *(row.lane.replay for row in self.rows)}):  # of a sample alone, too
            replay.cast(self._casts)

    def _learn_blends(self, like: Output) -> None:
        """Remember what came back for each state of the round, wherever it was evaluated."""
        assert self.replay is not None
        self.blends = True
        exchange, count, back = self.exchange, len(self._round), [back.float() for _, back in self._came_back]
        if exchange.size > 1:
            exchange.begin(self._round[0].x, count)
            exchange.plan(self._owners)
            back, _ = exchange.gather(back, count, self._check())
            exchange.begin(like, len(self.rows) * self.solver.workers)
        for evaluation, x in zip(self._round, back, strict=True):
            for number, row in enumerate(self.rows):
                part = slice(number, number + 1)
                row.lane.blends.note(evaluation.index, evaluation.x[part], x[part])

    def _share_out(self) -> None:
        """Decide the next round, and who makes which of its evaluations."""
        self._round = self._merge()
        rank, size = self.exchange.rank, self.exchange.size
        owners = [place % size for place in range(len(self._round))]
        if self.manager is not None and self.manager.cache is not None:
            owners = self.manager.owners([evaluation.index for evaluation in self._round], size, rank)
        self.exchange.plan(owners)
        self._owners = owners
        self._queue = [e for e, owner in zip(self._round, owners, strict=True) if owner == rank]

    def _notes(self) -> Notes:
        """Say what this rank has seen since its last note, for the sums of all ranks'.

        The parts of blocks that it has computed, and would have without a cache; a new cast; how often the loop blended.
        """
        casts = 0 if self._new_casts is None else RANK + self._new_casts.as_number()
        blends = sum(handed is not back for handed, back in self._came_back)
        if self.manager is None:
            return (0, 0, casts, blends)
        before, (done, asked) = self._noted, self.manager.blocks
        self._noted = round(done * BLOCK_PARTS), round(asked * BLOCK_PARTS)
        return self._noted[0] - before[0], self._noted[1] - before[1], casts, blends

    def _count_blocks(self, manager: CacheManager, output: Tensor) -> None:
        """Add up what all ranks of the item have computed: so far it is a sum over those with this rank's part."""
        done, asked = manager.of_slot(self.blocks, output)
        self.blocks = round(done / BLOCK_PARTS, 3), round(asked / BLOCK_PARTS, 3)

    def _check(self) -> int:
        """Hash the round's decisions, which are the same on all ranks or something is badly wrong."""
        return zlib.crc32(repr((self.rounds, [e.index for e in self._round])).encode())

    def _report(self, predict: Callable[[], Sample] | None) -> None:
        if self.on_round is None:
            return
        fronts = [r.points[0].index if r.points else self.num_steps for r in self.rows]
        self.on_round(CallProgress(min(fronts), self.num_steps, self.rounds, self.nfe, predict))


def summary(session: Session) -> Solution:
    """Return the solution of a call: its only sample's, or that of the batch's slowest row."""
    return max(session.solutions, key=lambda solution: solution.rounds)
