"""The simulation of benchmarks/scale.py: its parts that could be wrong, and that docs/scale.md says what it says."""

from __future__ import annotations

import asyncio
import math
from statistics import fmean

import pytest

from benchmarks import scale, traffic, under_load
from benchmarks.partitions import Bucket
from tests import costs
from tests.memory_calls import MemoryCalls
from tests.write_units import reply

pytestmark = pytest.mark.anyio

PAGE = scale.PAGE.read_text()


@pytest.fixture(autouse=True)
def metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged of a reply is paid for."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "false")


def test_the_tables_are_those_that_are_simulated() -> None:
    """`python -m benchmarks.scale --write` would change nothing."""
    assert scale.with_tables(PAGE) == PAGE


def test_a_bucket_gives_what_it_takes_a_second() -> None:
    """It lets in whoever comes while there is anything, who may owe more than there is; then nobody, until that is
    paid."""
    bucket = Bucket(10)
    assert bucket.is_free(0.0)
    bucket.owe(15)
    assert not bucket.is_free(0.4)
    assert bucket.is_free(0.6)
    bucket.owe(1)
    assert not bucket.is_free(0.6)
    bucket = Bucket(10)
    let_in = 0
    for tick in range(1_000):
        if bucket.is_free(tick / 100):
            bucket.owe(1)
            let_in += 1
    assert let_in == pytest.approx(100 + 10, abs=1)  # ten seconds, and the one that it had
    bucket.is_free(1_000.0)
    bucket.owe(11)
    assert not bucket.is_free(1_000.0)  # nothing is saved for longer than a second


def test_a_reply_costs_what_tests_costs_counts() -> None:
    """But for what a start of the routes has beside, the item of its limits, and for a segment that the wait before the
    first chunk may make."""
    for chunks in (100, 500):
        seen = traffic.trace(chunks)
        counted = costs.ReplyUnits(chunks)
        assert seen.identity == 2
        assert seen.writes - seen.identity == pytest.approx(counted.write_units, abs=1)
        assert seen.seconds == pytest.approx(counted.seconds, abs=0.1)


async def test_time_makes_no_difference_to_what_is_written() -> None:
    """The virtual table answers later than one in memory, and is billed the same: a unit for each segment but the last,
    whose transaction counts elsewhere."""
    message, calls, store = await reply(MemoryCalls(), 100, flush_interval=0.1)
    assert message.status == "completed"
    segments = [segment async for segment in store.log.read(message.id)]
    assert calls.units["PutItem"] == len(segments) - 1
    seen = await asyncio.to_thread(traffic.trace, 100, flush=0.1)
    assert sum(seen.log) == seen.segments - 1
    assert seen.segments == pytest.approx(len(segments), abs=1)


def test_a_reply_is_written_as_often_as_somebody_reads_along() -> None:
    """Twice a second while nobody does, ten times with a subscriber or a follower: the kinds differ by that."""
    alone, watched, followed = (traffic.trace(500, **more) for more in ({}, {"watched": True}, {"followed": True}))
    assert alone.segments < 30
    assert watched.segments > 85
    assert followed.segments > 85


def test_as_many_are_open_as_little_s_law_says() -> None:
    """Rate times duration."""
    seen = traffic.simulate(200_000, 200)
    assert fmean(seen.open) == pytest.approx(200_000 / 3600 * traffic.mean_seconds(), rel=0.05)
    assert seen.replies == pytest.approx(200_000 / 3600 * 200, rel=0.05)
    assert fmean(seen.writes) == pytest.approx(
        200_000 / 3600 * sum(share * kind.table_writes for share, kind, _ in traffic.traces()), rel=0.05
    )


def test_a_quota_bites_where_the_simulation_sees_it() -> None:
    """What is solved for at one rate is seen at another: at that of the table's writes, all of them are used."""
    (writes,) = (quota for quota in scale.quotas() if quota.what == scale.TABLE_WRITES)
    seen = traffic.simulate(writes.bites_at, 60, seed=2)
    assert fmean(seen.writes) == pytest.approx(writes.limit, rel=0.05)
    assert [quota.bites_at for quota in scale.quotas()] == sorted(quota.bites_at for quota in scale.quotas())


def test_the_shares_are_whole() -> None:
    """Of lengths and of kinds."""
    assert math.isclose(sum(traffic.LENGTHS.values()), 1)
    assert math.isclose(sum(share for share, _, _ in traffic.traces()), 1)
    assert math.isclose(sum(traffic.subscribers_weights()), 1)


# ---- what was mended ----


def test_a_sweep_goes_through_its_shards_at_the_same_time() -> None:
    """Ending an orphan takes three reads and a transaction; 80 of them take a fourth of their sum at most."""
    swept = under_load.sweep(80)
    assert swept.done == 80
    one = under_load.sweep(1)
    assert swept.seconds < 80 * (one.seconds - 0.005) / 4


def test_a_prune_deletes_many_at_a_time() -> None:
    """And costs no read for what was deleted lately."""
    pruned = under_load.prune(100)
    assert pruned.seconds < 0.3
    assert under_load.prune(0, kept=100).calls == 1


def test_a_table_that_takes_half_costs_no_reply() -> None:
    """Its segments become larger, so the replies write half."""
    slow = under_load.throttled(20, 0.5, 6.0)
    assert (slow.completed, slow.failed) == (20, 0)
    assert slow.units < 0.75 * under_load.throttled(20, 1.0, 6.0).units


def test_those_who_come_back_do_not_end_a_reply() -> None:
    """Each checks the place of its next segment, and they keep each other out; its writer finds a moment for it."""
    seen = under_load.catch_ups(500, 1.5)
    assert seen.reply == "completed"
    assert seen.late < 2
    assert seen.served > 375
