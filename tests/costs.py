"""What replies cost on AWS: counted units times published prices. It writes the tables of docs/deploy.md.

    python -m tests.costs

The counts are those of a run (tests/write_units.py) and of what the code sends; the prices are the list's, below.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import cache
from typing import Any, Final

import msgspec
import yaml
from tailrace import telemetry
from tailrace.backend import Backend
from tailrace.events import Message
from tailrace.protocols.reader import Opening, Reading
from tailrace.protocols.simple import SimpleProtocol
from tailrace.reply.follow import QUICK
from tailrace.reply.log_writer import READ_ALONG, SIGN_SECONDS
from tailrace.settings import Settings
from tailrace.store import Store
from tailrace.testing import ManualClock

from tests.memory_calls import MemoryCalls
from tests.test_template import TEMPLATE, Loader
from tests.write_units import PER_SECOND, STORED_OVERHEAD, CountingCalls, chunk, item_bytes, reply

PAGE: Final = TEMPLATE.parent / "docs" / "deploy.md"

GB: Final = 1024**3

PRICES: Final[Mapping[str, tuple[float, str]]] = {
    "write_unit": (0.625e-6, "DynamoDB, on demand, write request unit"),
    "read_unit": (0.125e-6, "DynamoDB, on demand, read request unit"),
    "stored": (0.25, "DynamoDB, table and indexes, GB and month"),
    "backed_up": (0.20, "DynamoDB, point-in-time recovery, GB and month"),
    "gb_second_arm": (0.0000133334, "Lambda, arm64, GB-second"),
    "request": (0.20e-6, "Lambda, request"),
    "streamed": (0.008, "Lambda, GB streamed beyond the first 6 MB of a response"),
    "message": (1.00e-6, "API Gateway WebSocket, message of up to 32 KB"),
    "connection_minute": (0.25e-6, "API Gateway WebSocket, minute of a connection"),
    "rest_request": (3.50e-6, "API Gateway REST API, request, and each 10 MB of a streamed answer"),
    "waf_request": (0.60e-6, "WAF, request"),
    "waf_acl": (5.00, "WAF, web ACL and month"),
    "waf_rule": (1.00, "WAF, rule of a web ACL and month"),
    "logged": (0.50, "CloudWatch Logs, GB taken in"),
    "out": (0.09, "data transfer out to the internet, GB"),
    "metric": (0.30, "CloudWatch, metric and month"),
    "alarm": (0.10, "CloudWatch, alarm and month"),
    "dashboard": (3.00, "CloudWatch, dashboard and month"),
    "secret": (0.40, "Secrets Manager, secret and month"),
}
"""US dollars in us-east-1, first tier, and what for. Free allowances are left out."""

REPLIES: Final = 1_000

LENGTHS: Final = (100, 1_000, 10_000)
"""Chunks of the replies that are worked out, of four characters each and 50 a second: 2, 20 and 200 seconds."""

PROVIDER_SECONDS: Final = 1.0
"""Assumed: until a provider's first chunk. The function is paid for while it waits."""

SHORT_CALL: Final = 0.2
"""Assumed: seconds of a call of the broadcast function or the sweep."""

PLATFORM_LOG: Final = 400
"""Assumed: bytes of the three lines that Lambda itself logs for a call."""

STREAMED_FREE: Final = 6 * 1024**2
"""Bytes of each response that cost nothing to stream (https://aws.amazon.com/lambda/pricing/)."""

METERED: Final = 32 * 1024
"""Bytes of a WebSocket message that are one (https://aws.amazon.com/api-gateway/pricing/)."""

REST_METERED: Final = 10 * 1024**2
"""Bytes of a streamed answer that are one request of a REST API
(https://aws.amazon.com/blogs/compute/building-responsive-apis-with-amazon-api-gateway-response-streaming/)."""

NOBODY: Final = "http://127.0.0.1:9/nobody-is-called"

MONTH_HOURS: Final = 730


def price(name: str) -> float:
    """Return a unit's price in US dollars."""
    return PRICES[name][0]


@cache
def _template() -> Any:
    return yaml.load(TEMPLATE.read_text(), Loader)


def resources() -> dict[str, Any]:
    """Return the template's resources."""
    found: dict[str, Any] = _template()["Resources"]
    return found


def parameters() -> dict[str, Any]:
    """Return the defaults of the template's parameters."""
    return {name: parameter["Default"] for name, parameter in _template()["Parameters"].items()}


def memory(function: str) -> float:
    """Return the GB that the template gives a function by default."""
    size = resources()[function]["Properties"]["MemorySize"]
    return float(size if isinstance(size, int) else parameters()[size]) / 1024


def call(function: str, seconds: float) -> float:
    """Return the price of one call."""
    return seconds * memory(function) * price("gb_second_arm") + price("request")


class ReplyUnits:
    """The units of one reply, started over HTTP, stored, and announced to subscribers, of whom there are none.

    Attributes:
        write_units, read_units: DynamoDB's; a read is counted as one unit, which is from above: they are small.
        read_along: the write units while somebody else reads along from the beginning to the end.
        log_bytes, kept_bytes: stored until the log expires, and for good.
        seconds: that the stream function runs.
        sent_bytes: of server-sent events.
        logged_bytes: of the function's log.
        messages: that a subscriber gets, as API Gateway meters them: at most a segment each, the two messages of the
            start, and the end, which has the whole text.
    """

    def __init__(self, chunks: int) -> None:
        memory_calls = MemoryCalls()
        message, calls, _ = asyncio.run(reply(memory_calls, chunks, websocket_url=NOBODY))
        self.write_units = calls.units.total()
        heard = MemoryCalls()
        _, more, _ = asyncio.run(reply(heard, chunks, websocket_url=NOBODY, flush_interval=READ_ALONG))
        self.read_along = more.units.total()
        self.read_units = sum(calls.made[name] for name in ("GetItem", "BatchGetItem", "Query"))
        sizes = {key: item_bytes(item) + STORED_OVERHEAD for key, item in memory_calls.items.items()}
        segments = {key: size for key, size in sizes.items() if key[1].startswith("L#")}
        self.log_bytes = sum(segments.values())
        self.kept_bytes = sum(size for key, size in sizes.items() if key not in segments)
        self.seconds = PROVIDER_SECONDS + chunks / PER_SECOND
        simple = SimpleProtocol(Opening(message_id=message.id, conversation_id=""), Reading(monotonic=lambda: 0.0))
        self.sent_bytes = sum(len(simple.events(number + 1, [chunk(number)])) for number in range(chunks))
        self.sent_bytes += len(simple.end(message))
        self.logged_bytes = len(logged(message).encode()) + PLATFORM_LOG
        end = len(msgspec.json.encode({"message": msgspec.to_builtins(message)}))
        posted = sum(key[1].startswith("L#") for key in heard.items)
        self.messages = posted + 2 + math.ceil(end / METERED)

    # ---- US dollars for REPLIES of them ----

    def writes(self) -> float:
        return REPLIES * self.write_units * price("write_unit")

    def reads(self) -> float:
        return REPLIES * self.read_units * price("read_unit")

    def storage(self) -> float:
        """A month of the messages, and the log for as long as it is kept, each with its backup."""
        hours = Settings().retention / 3600 + 1
        gb_months = REPLIES * (self.kept_bytes + self.log_bytes * hours / MONTH_HOURS) / GB
        return gb_months * (price("stored") + price("backed_up"))

    def function(self) -> float:
        return REPLIES * call("StreamFunction", self.seconds)

    def bytes_out(self) -> float:
        streamed = max(0, self.sent_bytes - STREAMED_FREE)
        return REPLIES * (self.sent_bytes * price("out") + streamed * price("streamed")) / GB

    def logs(self) -> float:
        return REPLIES * self.logged_bytes * price("logged") / GB

    def announcing(self) -> float:
        """The broadcast function, woken by the table's stream for both messages and the end, each alone in its batch,
        which is from above. Its reads of the stream are free."""
        return REPLIES * 3 * call("BroadcastFunction", SHORT_CALL)

    def total(self) -> float:
        """Everything but readers beside the one who started it."""
        return sum(cost() for _, cost in self.rows())

    def heard(self) -> float:
        """What is written more often while somebody reads along, however many."""
        return REPLIES * (self.read_along - self.write_units) * price("write_unit")

    def subscriber(self) -> float:
        """One more who gets each of them over WebSocket, connected only while they come."""
        minutes = math.ceil(self.seconds / 60)
        return REPLIES * (self.messages * price("message") + minutes * price("connection_minute"))

    def follower(self) -> float:
        """One more who reads each of them from the log while it is written: a look and half a unit at a time, in a
        function of its own."""
        looks, signs = self.seconds / QUICK, self.seconds / SIGN_SECONDS
        table = looks / 2 * price("read_unit") + signs * price("write_unit")
        return REPLIES * (table + call("StreamFunction", self.seconds))

    def through_rest(self) -> float:
        """One request more, and one for each further 10 MB that it streams; of who starts one, and of who follows."""
        return REPLIES * math.ceil(self.sent_bytes / REST_METERED) * price("rest_request")

    def through_waf(self) -> float:
        """The request that a web ACL looks at, with rules that cost no more by the request."""
        return REPLIES * price("waf_request")

    def rows(self) -> list[tuple[str, Callable[[], float]]]:
        """Return what is paid for."""
        return [
            ("Lambda, stream function", self.function),
            ("DynamoDB, writes", self.writes),
            ("DynamoDB, reads", self.reads),
            ("DynamoDB, storage for a month, with backups", self.storage),
            ("Lambda, broadcast function", self.announcing),
            ("bytes out to the reader", self.bytes_out),
            ("CloudWatch Logs", self.logs),
        ]


def logged(message: Message) -> str:
    """Return what the end of a reply logs: a line, and its metrics in another one."""
    printed = io.StringIO()
    handler = telemetry.logger.registered_handler
    assert isinstance(handler, logging.StreamHandler)
    before = handler.setStream(printed)
    try:
        with redirect_stdout(printed):
            telemetry.reply_ended(message, "5e1f7ad2-3a6b-4f0e-9d53-0c9a5f1b2c3d")
    finally:
        handler.setStream(before)
    return printed.getvalue()


def metrics() -> list[str]:
    """Return the names of the metrics that a reply sends."""
    message, _, _ = asyncio.run(reply(MemoryCalls(), 1))
    (document,) = (json.loads(line) for line in logged(message).splitlines() if '"_aws"' in line)
    return [metric["Name"] for metric in document["_aws"]["CloudWatchMetrics"][0]["Metrics"]]


def sweep_reads() -> int:
    """Return the read units of a sweep that finds nothing, each look as one unit."""
    calls = CountingCalls(MemoryCalls())
    clock = ManualClock()
    backend = Backend(Settings(), store=Store(calls, "memory", clock=clock), clock=clock)
    asyncio.run(backend.open_replies.sweep())
    return calls.made.total()


def dollars(value: float) -> str:
    """Return an amount with two digits that count."""
    return f"{value:.4f}" if value < 0.01 else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def prices_table() -> str:
    """Return the unit prices."""
    rows = [f"| {what} | {value:.10f}".rstrip("0").rstrip(".") + " |" for value, what in PRICES.values()]
    return "\n".join(["| unit | US dollars |", "|---|---|", *rows])


def replies_table() -> str:
    """Return what replies cost."""
    units = [ReplyUnits(chunks) for chunks in LENGTHS]
    heads = [f"{chunks:,} chunks, {chunks / PER_SECOND:.0f} s" for chunks in LENGTHS]
    rows = [
        (
            "write units of one reply, alone / with somebody who reads along",
            [f"{each.write_units:,} / {each.read_along:,}" for each in units],
        ),
        ("bytes stored of one reply, log / for good", [f"{each.log_bytes:,} / {each.kept_bytes:,}" for each in units]),
        ("bytes streamed of one reply", [f"{each.sent_bytes:,}" for each in units]),
    ]
    for number, (name, _) in enumerate(units[0].rows()):
        rows.append((name, [dollars(each.rows()[number][1]()) for each in units]))
    rows.append(("**together**", [f"**{dollars(each.total())}**" for each in units]))
    rows.append(("somebody else reads along, whoever, more", [dollars(each.heard()) for each in units]))
    rows.append(("each WebSocket subscriber, more", [dollars(each.subscriber()) for each in units]))
    rows.append(("each follower over HTTP, more", [dollars(each.follower()) for each in units]))
    rows.append(("through the REST API, each of them more", [dollars(each.through_rest()) for each in units]))
    rows.append(("and behind a web ACL, more", [dollars(each.through_waf()) for each in units]))
    lines = ["| for 1,000 replies of | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(values) + " |" for name, values in rows)])


def month_rows() -> list[tuple[str, float]]:
    """Return what a stack costs in a month in which nothing happens, in US dollars."""
    kinds = [resource["Type"] for resource in resources().values()]
    minutes = MONTH_HOURS * 60
    return [
        ("the sweep, each minute", minutes * (call("SweepFunction", SHORT_CALL) + sweep_reads() * price("read_unit"))),
        ("secrets that the stack makes", kinds.count("AWS::SecretsManager::Secret") * price("secret")),
        ("alarms", kinds.count("AWS::CloudWatch::Alarm") * price("alarm")),
        ("dashboard", kinds.count("AWS::CloudWatch::Dashboard") * price("dashboard")),
        ("metrics, for each provider that was used", len(metrics()) * price("metric")),
        ("a web ACL of yours, with one rule", price("waf_acl") + price("waf_rule")),
    ]


def month_table() -> str:
    """Return the same as a table."""
    rows = [f"| {name} | {dollars(cost)} |" for name, cost in month_rows() if cost]
    return "\n".join(["| a month | US dollars |", "|---|---|", *rows])


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "prices": prices_table,
    "replies": replies_table,
    "month": month_table,
}


def with_tables(page: str) -> str:
    """Return the page with each table between its marks computed anew."""
    return between_marks(page, TABLES, "python -m tests.costs")


def between_marks(page: str, tables: Mapping[str, Callable[[], str]], command: str) -> str:
    """Return a page with each table between its marks computed anew; the marks name the command that does it."""
    for name, table in tables.items():
        begin, end = f"<!-- {name}: {command} -->\n", "\n<!-- end -->"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        assert found, f"the page has no marks for the table {name}"
        page = before + begin + table() + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
