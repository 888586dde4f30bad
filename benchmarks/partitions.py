"""What a partition of DynamoDB takes, as far as AWS says how it works.

- A partition takes 1,000 write and 3,000 read units a second:
  https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/warm-throughput-scenarios.html
- A hot one is split, also between the sort keys of one partition key, which takes minutes and does not help where
  each write has a higher sort key than the one before:
  https://aws.amazon.com/blogs/database/part-3-scaling-dynamodb-how-partitions-hot-keys-and-split-for-heat-impact-performance/
- A hot key of an index throttles the writes to the table that change it:
  https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/gsi-throttling.html
- What was not used in the last five minutes can be used later, at best, and not above a partition's own limit, so it
  counts for nothing here: https://repost.aws/knowledge-center/dynamodb-spiky-workloads-short-intervals
"""

from __future__ import annotations

from typing import Final

PARTITION_WRITES: Final = 1_000
PARTITION_READS: Final = 3_000


class Bucket:
    """A second's worth of units, which fills again as time passes.

    A request is let in while there is anything, and then pays what it cost, which may be more than there is.

    Args:
        per_second: units.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._left = per_second
        self._at = 0.0

    def is_free(self, now: float) -> bool:
        """Whether a request would be let in at a moment, in seconds."""
        self._left = min(self._per_second, self._left + (now - self._at) * self._per_second)
        self._at = now
        return self._left > 0

    def owe(self, units: float) -> None:
        """Take what a request has cost that was let in."""
        self._left -= units
