"""What replies cost on AWS: counted units times published prices. It prints the tables of docs/deploy.md.

    python -m tests.costs

The counts are those of a run (tests/write_units.py) and of what the code sends; the prices are the list's, below.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from tailrace import telemetry
from tailrace.events import Message
from tailrace.follow import QUICK
from tailrace.protocols.simple import SimpleProtocol
from tailrace.settings import Settings

from tests.memory_calls import MemoryCalls
from tests.test_template import TEMPLATE, Loader
from tests.write_units import PER_SECOND, STORED_OVERHEAD, chunk, item_bytes, reply

REGION: Final = "us-east-1"

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
    "logged": (0.50, "CloudWatch Logs, GB taken in"),
    "out": (0.09, "data transfer out to the internet, GB"),
    "metric": (0.30, "CloudWatch, metric and month"),
    "secret": (0.40, "Secrets Manager, secret and month"),
}
"""US dollars in us-east-1, first tier, and what for. Free allowances are left out."""

REPLIES: Final = 1_000

LENGTHS: Final = (100, 1_000, 10_000)
"""Chunks of the replies that are worked out, of four characters each and 50 a second: 2, 20 and 200 seconds."""

PROVIDER_SECONDS: Final = 1.0
"""Assumed: until a provider's first chunk. The function is paid for while it waits."""

PLATFORM_LOG: Final = 400
"""Assumed: bytes of the three lines that Lambda itself logs for a call."""

STREAMED_FREE: Final = 6 * 1024**2
"""Bytes of each response that cost nothing to stream (https://aws.amazon.com/lambda/pricing/)."""

METERED: Final = 32 * 1024
"""Bytes of a WebSocket message that are one (https://aws.amazon.com/api-gateway/pricing/)."""

NOBODY: Final = "http://127.0.0.1:9/nobody-is-called"

MONTH_HOURS: Final = 730


def price(name: str) -> float:
    """Return a unit's price in US dollars."""
    return PRICES[name][0]


def memory(parameter: str) -> float:
    """Return the GB that the template gives a function by default."""
    template: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader)
    return float(template["Parameters"][parameter]["Default"]) / 1024


class ReplyUnits:
    """The units of one reply, started over HTTP, stored, and announced to subscribers, of whom there are none.

    Attributes:
        write_units, read_units: DynamoDB's; a read is counted as one unit, which is from above: they are small.
        log_bytes, kept_bytes: stored until the log expires, and for good.
        seconds: that the stream function runs.
        sent_bytes: of server-sent events.
        logged_bytes: of the function's log.
        frames: of chunks that each subscriber gets at most: one a segment.
        frame_bytes: of the largest of them, from above.
    """

    def __init__(self, chunks: int) -> None:
        memory_calls = MemoryCalls()
        message, calls, _ = asyncio.run(reply(memory_calls, chunks, websocket_url=NOBODY))
        self.write_units = calls.units.total()
        self.read_units = sum(calls.made[name] for name in ("GetItem", "BatchGetItem", "Query"))
        sizes = {key: item_bytes(item) + STORED_OVERHEAD for key, item in memory_calls.items.items()}
        segments = {key: size for key, size in sizes.items() if key[1].startswith("L#")}
        self.log_bytes = sum(segments.values())
        self.kept_bytes = sum(size for key, size in sizes.items() if key not in segments)
        self.seconds = PROVIDER_SECONDS + chunks / PER_SECOND
        simple = SimpleProtocol(message.id, None, lambda: 0.0)
        self.sent_bytes = sum(len(simple.events(number + 1, [chunk(number)])) for number in range(chunks))
        self.sent_bytes += len(simple.end(message))
        self.logged_bytes = _logged(message) + PLATFORM_LOG
        self.frames = len(segments)
        end = len(msgspec.json.encode({"message": msgspec.to_builtins(message)}))
        self.messages = self.frames + 2 + math.ceil(end / METERED)  # both messages of the start, and the end

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
        return REPLIES * (self.seconds * memory("StreamMemory") * price("gb_second_arm") + price("request"))

    def bytes_out(self) -> float:
        streamed = max(0, self.sent_bytes - STREAMED_FREE)
        return REPLIES * (self.sent_bytes * price("out") + streamed * price("streamed")) / GB

    def logs(self) -> float:
        return REPLIES * self.logged_bytes * price("logged") / GB

    def announcing(self) -> float:
        """The broadcast function, woken by the table's stream for the two messages and the end, 0.1 s each and alone in
        its batch, which is from above. Its reads of the stream are free."""
        return REPLIES * 3 * (0.1 * memory("SubscriberMemory") * price("gb_second_arm") + price("request"))

    def total(self) -> float:
        """Everything but readers beside the one who started it."""
        return sum(cost() for _, cost in self.rows())

    def subscriber(self) -> float:
        """One more who gets each of them over WebSocket, connected only while they come."""
        minutes = math.ceil(self.seconds / 60)
        return REPLIES * (self.messages * price("message") + minutes * price("connection_minute"))

    def follower(self) -> float:
        """One more who reads each of them from the log while it is written: a look and half a unit at a time, in a
        function of its own."""
        looks = self.seconds / QUICK
        function = self.seconds * memory("StreamMemory") * price("gb_second_arm") + price("request")
        return REPLIES * (looks / 2 * price("read_unit") + function)

    def rows(self) -> list[tuple[str, Any]]:
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


def _logged(message: Message) -> int:
    """Return the bytes that the end of a reply logs: a line, and its metrics in another one."""
    printed = io.StringIO()
    handler = telemetry.logger.registered_handler
    stream = handler.setStream(printed)  # type: ignore[attr-defined]
    try:
        with redirect_stdout(printed):
            telemetry.reply_ended(message, "5e1f7ad2-3a6b-4f0e-9d53-0c9a5f1b2c3d")
    finally:
        handler.setStream(stream)  # type: ignore[attr-defined]
    return len(printed.getvalue().encode())


def dollars(value: float) -> str:
    """Return an amount with two digits that count."""
    return f"{value:.4f}" if value < 0.01 else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def prices_table() -> str:
    """Return the unit prices as docs/deploy.md has them."""
    rows = [f"| {what} | {value:.10f}".rstrip("0").rstrip(".") + " |" for value, what in PRICES.values()]
    return "\n".join(["| unit | US dollars |", "|---|---|", *rows])


def costs_table() -> str:
    """Return the costs of the replies as docs/deploy.md has them."""
    units = [ReplyUnits(chunks) for chunks in LENGTHS]
    heads = [f"{chunks:,} chunks, {chunks / PER_SECOND:.0f} s" for chunks in LENGTHS]
    rows = [
        ("write units of one reply", [f"{each.write_units:,}" for each in units]),
        ("bytes stored of one reply, log / for good", [f"{u.log_bytes:,} / {u.kept_bytes:,}" for u in units]),
        ("bytes streamed of one reply", [f"{each.sent_bytes:,}" for each in units]),
    ]
    names = [name for name, _ in units[0].rows()]
    for number, name in enumerate(names):
        rows.append((name, [dollars(each.rows()[number][1]()) for each in units]))
    rows.append(("**together**", [f"**{dollars(each.total())}**" for each in units]))
    rows.append(("each WebSocket subscriber, more", [dollars(each.subscriber()) for each in units]))
    rows.append(("each follower over HTTP, more", [dollars(each.follower()) for each in units]))
    lines = ["| for 1,000 replies of | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(values) + " |" for name, values in rows)])


if __name__ == "__main__":
    print(prices_table(), costs_table(), sep="\n\n")  # noqa: T201  # it is run by hand, for what it prints
