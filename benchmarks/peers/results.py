"""What was found, as figures: what the page is written from, and what can be kept for writing it again."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import measure
from benchmarks.peers.kinds import Kind
from benchmarks.peers.load import Found
from benchmarks.peers.subjects import TOOLS

BUSY: Final = 0.9
"""How much of their cores provider, table and client may have before it is they who do not keep up."""

KEPT_UP: Final = 0.95
"""Of the chunks that are offered, how many must come in time for it not to be called saturated."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of figure.

    Attributes:
        label: the kind of load that it is of; None for the memory.
        more_is_better: whether it is the larger one that is better.
    """

    title: str
    label: str | None
    more_is_better: bool = False


FIGURES: Final[Mapping[str, Figure]] = {
    "paced-20": Figure(title="CPU µs a chunk, 20 streams at 50/s", label="paced-20"),
    "step-20": Figure(title="CPU µs a chunk, 20 streams at 50/s in step", label="step-20"),
    "paced-500": Figure(title="CPU µs a chunk, 500 streams at 50/s", label="paced-500"),
    "burst-1": Figure(title="CPU µs a chunk, a burst at 1 stream", label="burst-1"),
    "burst-50": Figure(title="CPU µs a chunk, a burst at 50 streams", label="burst-50"),
    "burst-500": Figure(title="CPU µs a chunk, a burst at 500 streams", label="burst-500"),
    "reply": Figure(title="CPU ms of a reply of one chunk", label="first"),
    "rate-1": Figure(title="chunks/s at 1 stream", label="burst-1", more_is_better=True),
    "rate-50": Figure(title="chunks/s at 50 streams", label="burst-50", more_is_better=True),
    "rate-500": Figure(title="chunks/s at 500 streams", label="burst-500", more_is_better=True),
    "first": Figure(title="first chunk, ms added", label="first"),
    "delay-50": Figure(title="delay at 100/s, ms added, p50", label="delay"),
    "delay-99": Figure(title="delay at 100/s, ms added, p99", label="delay"),
    "mb": Figure(title="MB after the load", label=None),
}


class Results(msgspec.Struct, kw_only=True):
    """A run.

    Attributes:
        versions: what was measured, by the names of the packages.
        figures: by subject and kind of figure, one of each turn.
        failures: by subject and kind of load, what was wrong the first time it was.
        services: by subject, calls to the table and posts to the subscribers a second at 20 streams at 50/s.
        load: the machine's load average before and after; there is more than what is measured in the second.
    """

    date: str
    machine: str
    versions: dict[str, str]
    turns: int
    quick: bool
    streams: list[int]
    figures: dict[str, dict[str, list[float]]] = msgspec.field(default_factory=dict)
    failures: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    services: dict[str, tuple[float, float]] = msgspec.field(default_factory=dict)
    load: list[float] = msgspec.field(default_factory=list)

    def add(self, subject: str, figure: str, value: float) -> None:
        """Take a figure of a turn."""
        self.figures.setdefault(subject, {}).setdefault(figure, []).append(value)

    def median(self, subject: str, figure: str) -> float | None:
        """Return the median of the turns; None where there is none, or not in all that were tried."""
        label = FIGURES[figure].label
        if label is not None and label in self.failures.get(subject, {}):
            return None
        found = self.figures.get(subject, {}).get(figure)
        return statistics.median(found) if found else None

    def take(
        self, subject: str, label: str, kind: Kind, found: Found, direct: Found | None, harness: float = 0.0
    ) -> None:
        """Take what a load found.

        Args:
            direct: what the provider itself took, for what is told over that.
            harness: how much of their cores provider, table and client had.
        """
        if found.failed or found.refused or (kind.rate and found.chunks / found.seconds < KEPT_UP * kind.rate):
            self.failures.setdefault(subject, {}).setdefault(label, failure(kind, found, harness))
            return
        if label == "first":
            assert direct is not None
            self.add(subject, "first", statistics.median(found.firsts) - statistics.median(direct.firsts))
            self.add(subject, "reply", found.cpu / found.complete * 1000)
        elif label == "delay":
            assert direct is not None
            for name, part in (("delay-50", 0.5), ("delay-99", 0.99)):
                self.add(
                    subject, name, measure.percentile(found.delays, part) - measure.percentile(direct.delays, part)
                )
        else:
            self.add(subject, label, found.cpu / found.chunks * 1e6)
            if label.startswith("burst"):
                self.add(subject, label.replace("burst", "rate"), found.chunks / found.seconds)


def failure(kind: Kind, found: Found, harness: float) -> str:
    """Return what was wrong, in a few words."""
    failed = re.match(r"HTTP/1.1 ([45]\d\d)", found.failed)
    status = f", {found.refused} starts refused (429)" if found.refused else ""
    status += f", starts failed ({failed[1]})" if failed else ""
    if kind.rate:
        who = "saturated, as was what measures" if harness > BUSY else "saturated"
        rate = found.delivered / found.whole_seconds
        return f"{who}: {rate:,.0f} chunks/s of {kind.rate:,.0f}{status}"
    return f"{found.complete:,} of {kind.replies:,} replies came whole{status}"


def new_results(subjects: Iterable[str], turns: int, streams: set[int], *, quick: bool) -> Results:
    """Return results without figures."""
    return Results(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine=machine(),
        versions=versions(subjects),
        turns=turns,
        quick=quick,
        streams=sorted(streams),
        figures={name: {} for name in subjects},
        load=[os.getloadavg()[0]],
    )


def machine() -> str:
    """Return what the run is on."""
    return f"{os.cpu_count()} cores of {platform.machine()}, {platform.system()}, CPython {platform.python_version()}"


def versions(subjects: Iterable[str]) -> dict[str, str]:
    """Return the versions of what is measured, as it is installed."""
    found = {"aiohttp": importlib.metadata.version("aiohttp"), "uvicorn": importlib.metadata.version("uvicorn")}
    for peer, packages in (("sdk", ("fastapi", "openai")), ("litellm", ("litellm",))):
        if peer in subjects:
            places = [str(each) for each in (TOOLS / peer).glob("lib/python*/site-packages")]
            for each in importlib.metadata.distributions(path=places):
                if each.name in packages:
                    found[each.name] = each.version
    if "portkey" in subjects:
        modules = TOOLS / "portkey" / "node_modules"
        found["@portkey-ai/gateway"] = _package_version(modules / "@portkey-ai" / "gateway")
        for node in modules.glob("node-linux-*"):
            found["Node"] = _package_version(node)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=measure.ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {"Tailrace": commit or "no commit", **found}


def _package_version(folder: Path) -> str:
    version: str = json.loads((folder / "package.json").read_text())["version"]
    return version
