"""What template.yaml says of the broadcast function's event source, so that here it is called as it is in AWS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from local.child import ROOT
from local.event_pattern import Pattern, matches

TEMPLATE: Final = ROOT / "template.yaml"

Record = dict[str, Any]


@dataclass(frozen=True)
class EventSource:
    """Which records a function gets, and how they come again when it fails.

    https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html

    Attributes:
        patterns: a record is for the function if one of them matches.
        batch_size: records a call at most.
        lanes: batches at a time. Records of one partition key are in one lane, in order.
        bisects: whether a batch is halved when the function fails.
        reports: whether the function may report from which record on the batch has to come again.
        retries: of a batch, after which it is given up; None for no limit.
        oldest: seconds after which a record is given up; None for no limit.
    """

    patterns: tuple[Pattern, ...] = ()
    batch_size: int = 100
    lanes: int = 1
    bisects: bool = False
    reports: bool = False
    retries: int | None = None
    oldest: int | None = None

    def takes(self, record: Record) -> bool:
        """Return whether the function is called for a record."""
        return not self.patterns or any(matches(pattern, record) for pattern in self.patterns)


def read_event_source(name: str, template: Path = TEMPLATE) -> EventSource:
    """Return an ``AWS::Lambda::EventSourceMapping`` of a template.

    Args:
        name: of the resource.

    Raises:
        KeyError: there is no such resource.
        ValueError: a pattern is not JSON.
    """
    given = yaml.load(template.read_text(), _Loader)["Resources"][name]["Properties"]
    return event_source(given)


def event_source(given: Mapping[str, Any]) -> EventSource:
    """Return what the properties of the resource say. -1 is Lambda's word for no limit."""
    filters = given.get("FilterCriteria", {}).get("Filters", [])
    retries, oldest = given.get("MaximumRetryAttempts", -1), given.get("MaximumRecordAgeInSeconds", -1)
    return EventSource(
        patterns=tuple(json.loads(each["Pattern"]) for each in filters),
        batch_size=given.get("BatchSize", 100),
        lanes=given.get("ParallelizationFactor", 1),
        bisects=given.get("BisectBatchOnFunctionError", False),
        reports="ReportBatchItemFailures" in given.get("FunctionResponseTypes", []),
        retries=None if retries < 0 else retries,
        oldest=None if oldest < 0 else oldest,
    )


class _Loader(yaml.SafeLoader):
    """Reads a template without its functions: `!If`, `!Ref` and the like become None."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
