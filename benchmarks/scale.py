"""From 1 to 1,000,000 replies an hour: what it costs, what is hot, and which quota bites first (docs/scale.md).

    python -m benchmarks.scale [--quick] [--write]

Nothing is timed and nobody is asked. What a reply does to the table is counted as the real code does it, in virtual
time (traffic.py, virtual_table.py); many of them are a seeded simulation; the prices are those of tests/costs.py. The
last tables run the sweep, the prune, reports, starts, writers on a throttled table, and catch-ups, likewise.
``--write`` puts the first tables into docs/scale.md.
"""

from __future__ import annotations

import logging
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
from tailrace.store.items import OPEN_SHARDS

from benchmarks import measure, traffic, under_load
from benchmarks.partitions import PARTITION_WRITES
from tests import costs

PAGE: Final = Path(__file__).parent.parent / "docs" / "scale.md"

LEVELS: Final = (1, 1_000, 1_000_000)
"""Replies in the busiest hour."""

FULL: Final = LEVELS[-1]

CALL_CPU: Final = 0.00044
"""Seconds of CPU for a call to DynamoDB, of many at once: benchmarks/README.md, "The hot write"."""

VCPU: Final = 1769
"""Megabytes of a Lambda function that has a whole vCPU
(https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html)."""

BROADCASTS: Final = 3
"""Records of a reply that the broadcast function is called with: two messages and an end, each alone."""

CONNECTION_CALLS: Final = 3
"""Of a subscriber to the WebSocket API: connect, subscribe, disconnect; for each conversation, at most."""

JOBS: Final = 160
"""Replies, messages and conversations that the jobs are run with; what they take grows with their number."""


AWS: Final = "https://docs.aws.amazon.com/"
LAMBDA: Final = AWS + "lambda/latest/dg/"
DYNAMODB: Final = AWS + "amazondynamodb/latest/developerguide/"
PARTITION: Final = DYNAMODB + "warm-throughput-scenarios.html"
GATEWAY: Final = AWS + "apigateway/latest/developerguide/"
SOCKETS: Final = "apigateway-execution-service-websocket-limits-table.html"
SECRETS: Final = AWS + "secretsmanager/latest/userguide/reference_limits.html"


TABLE_WRITES: Final = "writes a second, of a table"


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What there is of something, and how much of it is used.

    Attributes:
        what: in a row of the page.
        limit: by default; of the template where it says so.
        used: at a million replies in the busiest hour, on average.
        where: the page that says so.
    """

    what: str
    limit: float
    used: float
    where: str

    @property
    def bites_at(self) -> float:
        """Replies an hour that use all of it."""
        return FULL * self.limit / self.used


@cache
def load(per_hour: float) -> traffic.Load:
    """Return what a simulation of the busiest hour sees: a part of it, or a day of it where little comes."""
    return traffic.simulate(per_hour, max(120, min(24 * 3600, round(3600 * 20_000 / per_hour))))


mean = statistics.fmean


def index_key(of: traffic.Load, name: str) -> float:
    """Return the write units a second of the busiest of an index's keys whose name begins so."""
    return max((mean(units) for key, units in of.index_keys.items() if key.startswith(name)), default=0.0)


def concurrency(of: traffic.Load, per_hour: float) -> dict[str, float]:
    """Return how many environments of each function are busy, on average."""
    rate = per_hour / 3600
    return {
        "stream": mean(of.open) * (1 + traffic.FOLLOWED),
        "broadcast": rate * BROADCASTS * costs.SHORT_CALL,
        "api": rate * traffic.NEW * costs.SHORT_CALL,
        "websocket": connections(per_hour) * CONNECTION_CALLS * costs.SHORT_CALL,
    }


def connections(per_hour: float) -> float:
    """Return new WebSocket connections a second: each subscriber of a conversation that has any makes one."""
    return per_hour / 3600 * traffic.NEW * traffic.WATCHED * traffic.SUBSCRIBERS


@cache
def quotas() -> list[Quota]:
    """Return all that is not far from mattering."""
    full = load(FULL)
    rate = FULL / 3600
    busy = concurrency(full, FULL)
    environments = sum(busy.values())
    parameters = costs.parameters()
    reserved = float(parameters["StreamConcurrency"])
    calls = connections(FULL) * CONNECTION_CALLS
    shard = index_key(full, "by_sweep open")
    deleted = index_key(full, "by_sweep deleted") + rate * traffic.REPLACING  # and the prune takes them out again
    quick = sum(share * traffic.trace(chunks, flush=0.1).table_writes for chunks, share in traffic.LENGTHS.items())
    rows = [
        ("`StreamConcurrency`, of the template", reserved, busy["stream"], LAMBDA + "configuration-concurrency.html"),
        ("requests a second at `StreamUrl`, ten for each", 10 * reserved, rate, LAMBDA + "urls-configuration.html"),
        ("Lambda, executions at once", 1_000, environments, LAMBDA + "gettingstarted-limits.html"),
        ("writes a second, of a new table", 4_000, mean(full.writes), DYNAMODB + "on-demand-capacity-mode.html"),
        (TABLE_WRITES, 40_000, mean(full.writes), DYNAMODB + "ServiceQuotas.html"),
        (f"{TABLE_WRITES}, with `TAILRACE_FLUSH_MS=100`", 40_000, rate * quick, DYNAMODB + "ServiceQuotas.html"),
        ("reads a second, of a table", 40_000, mean(full.reads), DYNAMODB + "ServiceQuotas.html"),
        ("writes a second, of the busiest shard of open replies", PARTITION_WRITES, shard, PARTITION),
        ("writes a second, of the index key of what was deleted", PARTITION_WRITES, deleted, PARTITION),
        ("API Gateway, requests and posts a second", 10_000, mean(full.posts) + calls, GATEWAY + "limits.html"),
        ("clients' frames a second, of the template", 1_000, calls, GATEWAY + "websocket-api-protect.html"),
        ("new WebSocket connections a second", 500, connections(FULL), GATEWAY + SOCKETS),
        ("secrets read a second, by each environment in 5 minutes", 10_000, environments / 300, SECRETS),
    ]
    found = [Quota(what=what, limit=limit, used=used, where=where) for what, limit, used, where in rows]
    return sorted(found, key=lambda quota: quota.bites_at)


def over(level: float) -> list[Quota]:
    """Return what is used up at a level, with the settings as they are."""
    return [quota for quota in quotas() if quota.bites_at <= level and "FLUSH_MS" not in quota.what]


# ---- tables of docs/scale.md ----


def levels_table() -> str:
    """Return what the busiest hour looks like."""
    seen = [load(level) for level in LEVELS]
    busy = [concurrency(each, level) for each, level in zip(seen, LEVELS, strict=True)]
    by = dict(zip(LEVELS, seen, strict=True))
    rows = [
        ("replies a second", [f"{level / 3600:.4g}" for level in LEVELS]),
        ("replies being written, mean / most", [f"{round_to(mean(each.open))} / {max(each.open):,}" for each in seen]),
        ("Lambda environments busy, mean", [round_to(sum(each.values())) for each in busy]),
        ("write units a second, mean / most", [f"{round_to(mean(e.writes))} / {max(e.writes):,.0f}" for e in seen]),
        ("read units a second, mean / most", [f"{round_to(mean(e.reads))} / {max(e.reads):,.0f}" for e in seen]),
        (
            "posts to subscribers a second, mean / most",
            [f"{round_to(mean(e.posts))} / {max(e.posts):,.0f}" for e in seen],
        ),
        (
            "busiest partition of the table, in its worst second",
            [f"{e.partition / PARTITION_WRITES:.1%}" for e in seen],
        ),
        ("busiest key of an index, mean", [f"{index_key(by[level], '') / PARTITION_WRITES:.2%}" for level in LEVELS]),
        ("replies older than the lease, which each sweep looks at", [round_to(mean(each.old)) for each in seen]),
        ("quotas that are over, of those below", [str(len(over(level))) for level in LEVELS]),
    ]
    head = "| in the busiest hour | " + " | ".join(f"{level:,}" for level in LEVELS) + " |"
    return table(head, rows)


def quotas_table() -> str:
    """Return what bites where, the first one first."""
    rows = [
        (
            f"{quota.what} ([AWS]({quota.where}))",
            [f"{quota.limit:,.0f}", round_to(quota.used), f"**{round_to(quota.bites_at)}**"],
        )
        for quota in quotas()
    ]
    return table(
        "| what there is | by default | used at 1,000,000 replies an hour | all of it at, replies an hour |", rows
    )


@cache
def units(chunks: int) -> costs.ReplyUnits:
    """Return what a reply of so many chunks is billed for."""
    return costs.ReplyUnits(chunks)


def costs_of_replies() -> dict[str, float]:
    """Return US dollars by part, for ``costs.REPLIES`` replies."""
    found: dict[str, float] = {}
    for chunks, share in traffic.LENGTHS.items():
        each = units(chunks)
        for name, cost in each.rows():
            found[name] = found.get(name, 0.0) + share * cost()
        watching = traffic.WATCHED * traffic.SUBSCRIBERS
        found["API Gateway, subscribers"] = (
            found.get("API Gateway, subscribers", 0.0) + share * watching * each.subscriber()
        )
        found["followers over HTTP"] = (
            found.get("followers over HTTP", 0.0) + share * traffic.FOLLOWED * each.follower()
        )
    # As they were seen, with their limits' item, deletions and conversations beside.
    kinds = traffic.traces()
    found["DynamoDB, writes"] = costs.REPLIES * costs.price("write_unit") * sum(s * kind.writes for s, kind, _ in kinds)
    found["DynamoDB, reads"] = costs.REPLIES * costs.price("read_unit") * sum(s * sum(k.reads) for s, k, _ in kinds)
    return found


def costs_table() -> str:
    """Return what replies cost by part, and what a month costs at each level."""
    each = costs_of_replies()
    hours = costs.MONTH_HOURS * traffic.DAY
    rows = [
        (name, [costs.dollars(cost), *(amount(level * hours / costs.REPLIES * cost) for level in LEVELS)])
        for name, cost in sorted(each.items(), key=lambda part: -part[1])
    ]
    rows.append(
        ("what is there anyway ([deploy.md](deploy.md#what-it-costs))", ["", *[amount(standing())] * len(LEVELS)])
    )
    total = sum(each.values())
    months = [level * hours / costs.REPLIES * total + standing() for level in LEVELS]
    rows.append(("**together**", [f"**{costs.dollars(total)}**", *(f"**{amount(month)}**" for month in months)]))
    names = " | ".join(f"a month at {level:,} in the busiest hour" for level in LEVELS)
    return table(f"| US dollars | 1,000 replies | {names} |", rows)


def standing() -> float:
    """Return what a stack costs in a month in which nothing happens, but for a web ACL."""
    return sum(value for name, value in costs.month_rows() if "web ACL" not in name)


def jobs_table() -> str:
    """Return how long the sweep, the prune and a report take at what a million replies an hour leave to them."""
    full = load(FULL)
    orphans, living = round(max(full.open)), round(mean(full.old))
    deleted = FULL * traffic.DAY * traffic.REPLACING
    sweeping, looking = under_load.sweep(JOBS), under_load.sweep(0, JOBS)
    pruning, reporting = under_load.prune(JOBS), under_load.report(JOBS)
    rows = [
        job_row(f"a sweep, of {living:,} living replies older than the lease", looking, living, "SweepFunction"),
        job_row(f"a sweep, after the writers of all {orphans:,} died at once", sweeping, orphans, "SweepFunction"),
        job_row(f"a prune, of an hour's {deleted:,.0f} replaced replies", pruning, deleted, "SweepFunction"),
        job_row("a day's report, of an owner with 1,000 conversations", reporting, 1_000, "ApiFunction"),
        job_row("the same with 100,000 conversations", reporting, 100_000, "ApiFunction"),
    ]
    return table("| job | seconds waiting | seconds of CPU | calls | read units |", rows)


def job_row(name: str, job: under_load.Job, count: float, function: str) -> tuple[str, list[str]]:
    """Return a job's row, for so many things."""
    by = count / JOBS
    cpu = job.calls * CALL_CPU / (costs.memory(function) * 1024 / VCPU)
    return name, [
        round_to(job.seconds * by),
        round_to(cpu * by),
        round_to(job.calls * by),
        round_to(job.read_units * by),
    ]


def round_to(value: float, digits: int = 2) -> str:
    """Return a number with so many digits that count."""
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, places)}f}"


def amount(value: float) -> str:
    """Return an amount of dollars."""
    return (
        costs.dollars(value)
        if value < 100
        else f"{round(value, -1):,.0f}"
        if value < 10_000
        else f"{round(value, -3):,.0f}"
    )


def table(head: str, rows: list[tuple[str, list[str]]]) -> str:
    """Return a table of a page."""
    columns = head.count("|") - 1
    lines = [head, "|" + "---|" * columns, *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows)]
    return "\n".join(line.rstrip() for line in lines)


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "levels": levels_table,
    "quotas": quotas_table,
    "costs": costs_table,
    "jobs": jobs_table,
}


def with_tables(page: str) -> str:
    """Return the page with each table between its marks computed anew."""
    return costs.between_marks(page, TABLES, "python -m benchmarks.scale --write")


# ---- what is only printed ----


def print_under_load(*, is_quick: bool) -> None:
    """Print what the code does where something takes less than it is given."""
    logging.disable(logging.CRITICAL)  # what is refused is the point here
    replies, seconds = (20, 10.0) if is_quick else (60, 20.0)
    throttled = {share: under_load.throttled(replies, share, seconds) for share in (1.0, 0.5, 0.25, 0.1)}
    show(
        f"{replies} replies of {seconds:g} s at once, on a table that takes a part of what they write",
        ["part", "completed", "failed", "units of one", "s to stored", "p99"],
        [[f"{share:.0%}", w.completed, w.failed, w.units, w.median, w.late] for share, w in throttled.items()],
    )
    rates = (None, 10, 30, 40, 60)
    starts = {rate: under_load.starts_of_one_owner(20 if rate is None else 300, rate) for rate in rates}
    show(
        "Starts of one identity, whose limits are counted in one item",
        ["a second", "admitted", "429", "503", "s, median", "longest"],
        [[rate or "20 at once", s.admitted, s.refused, s.failed, s.median, s.longest] for rate, s in starts.items()],
    )
    ups = {rate: under_load.catch_ups(rate, 1 if is_quick else 4) for rate in (20, 100, 500)}
    show(
        "Subscribers who come back to one reply that is being written, with a cursor each",
        ["a second", "served", "failed", "s, median", "longest", "the reply", "s to stored"],
        [[rate, u.served, u.failed, u.median, u.longest, u.reply, u.late] for rate, u in ups.items()],
    )


def show(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    print(f"\n{title}\n" + "".join(f"{head:>14}" for head in heads))
    for row in rows:
        print("".join(f"{cell:>14.2f}" if isinstance(cell, float) else f"{cell:>14}" for cell in row))


def main() -> int:
    parser = measure.arguments(__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables of docs/scale.md")
    given = parser.parse_args()
    if given.write:
        PAGE.write_text(with_tables(PAGE.read_text()))
        return 0
    for make in TABLES.values():
        print(f"\n{make()}")
    print_under_load(is_quick=given.quick)
    full = load(FULL)
    print()
    busiest = index_key(full, "by_sweep open")
    all_shards = sum(mean(units) for key, units in full.index_keys.items() if key.startswith("by_sweep open"))
    little = FULL / 3600 * traffic.mean_seconds()
    within = [
        measure.verdict(
            "replies at once by Little's law, of those that were simulated", mean(full.open) / little, 1.05
        ),
        measure.verdict("busiest shard of open replies by an even spread", busiest * OPEN_SHARDS / all_shards, 1.2),
        measure.verdict("busiest key of an index, of what it takes", index_key(full, "") / PARTITION_WRITES, 0.25),
        measure.verdict("busiest partition of the table, in its worst second", full.partition / PARTITION_WRITES, 1.0),
    ]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
