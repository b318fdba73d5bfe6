"""What ranks send each other: layouts come back as they went, and a failure or disagreement is an error on all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from genrun.adapters.parallel.exchange import ExchangeError, GroupExchange, LocalExchange


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Any]:
    """A gloo group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield None
    dist.destroy_process_group()


def outputs(count: int, dtype: torch.dtype) -> list[Tensor]:
    """Tensors whose memory order is not that of their dimensions, as those of convolutions in channels_last are."""
    noise = torch.randn(count, 1, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    return [each.to(dtype).contiguous(memory_format=torch.channels_last) for each in noise]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_outputs_come_back_with_their_bits_and_their_layout(group: Any, dtype: torch.dtype) -> None:
    exchange, sent = GroupExchange(group), outputs(3, dtype)
    exchange.begin(sent[0], 8)
    for count in (3, 1):
        gathered, _ = exchange.gather(sent[:count], count, check=7)
        assert len(gathered) == count
        for ours, theirs in zip(gathered, sent, strict=False):
            assert torch.equal(ours, theirs)
            assert (ours.dtype, ours.stride()) == (theirs.dtype, theirs.stride())


def test_gloo_carries_the_outputs_of_another_device_by_way_of_the_cpu(group: Any) -> None:
    """The other device is torch's meta device, from which nothing could be sent."""
    exchange, sent = GroupExchange(group), outputs(2, torch.bfloat16)
    exchange.begin(sent[0].to("meta"), 2)
    for ours, theirs in zip(exchange.gather(sent, 2, check=1)[0], sent, strict=True):
        assert (ours.device.type, ours.shape, ours.stride()) == ("meta", theirs.shape, theirs.stride())


def test_a_new_call_may_have_other_shapes(group: Any) -> None:
    exchange = GroupExchange(group)
    for size in (4, 9):
        sent = [torch.arange(size).float()]
        exchange.begin(sent[0], 1)
        assert torch.equal(exchange.gather(sent, 1, check=0)[0][0], sent[0])
        exchange.end()


@pytest.mark.parametrize(
    ("header", "message"),
    [([1, 0], "rank 1 of the time-parallel group failed"), ([0, 8], "the ranks of the time-parallel group disagree")],
)
def test_another_ranks_failure_or_other_decision_is_an_error_here(
    group: Any, header: list[int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other rank is played by what the collective returns."""
    exchange, sent = GroupExchange(group), torch.ones(4)
    exchange.begin(sent, 1)
    exchange.size = 2
    answer(monkeypatch, exchange, header)
    with pytest.raises(ExchangeError, match=message):
        exchange.gather([sent], 1, check=7)


def answer(monkeypatch: pytest.MonkeyPatch, exchange: GroupExchange, header: list[int]) -> None:
    def all_gather(everyone: Tensor, mine: Tensor, group: Any = None) -> None:
        theirs = mine.clone()
        theirs[:16] = torch.tensor(header).view(torch.uint8)
        everyone.copy_(torch.cat([mine, theirs]))

    monkeypatch.setattr(exchange, "_all_gather", all_gather)


def test_alone_outputs_are_handed_through() -> None:
    exchange, sent = LocalExchange(), outputs(2, torch.float32)
    exchange.begin(sent[0], 2)
    assert exchange.gather(sent, 2, check=0, notes=(3, 4, 0, 1)) == (sent, (3, 4, 0, 1))
    exchange.end()
    exchange.abort()
