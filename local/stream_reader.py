"""The records of a table's stream, read by boto3's client, in the form in which Lambda hands them to a function."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from local.event_source import Record

if TYPE_CHECKING:
    from mypy_boto3_dynamodbstreams import DynamoDBStreamsClient
    from mypy_boto3_dynamodbstreams.literals import ShardIteratorTypeType
    from mypy_boto3_dynamodbstreams.type_defs import RecordTypeDef

LOOKS_BETWEEN_LISTS: Final = 240
"""A stream's shards are listed again after so many looks: a minute. DynamoDB begins a new one every some hours."""

LOOK: Final = 1000
"""Records that a look returns at most: if it returns fewer, there are no more for now."""


class StreamReader:
    """Reads the stream of one table, shard by shard.

    For emulators only. Once it has seen a record of a shard, it asks for a new iterator at each look, instead of going
    on with the one that the last look returned, because moto's goes on with a table that it has thrown away once a
    transaction was rolled back. DynamoDB itself has to be read iterator by iterator, since a look may find nothing
    though there is more.

    Not for two threads at a time.

    Args:
        endpoint: the emulator's.
    """

    def __init__(self, table: str, *, region: str, endpoint: str) -> None:
        self._table = table
        self._region = region
        self._endpoint = endpoint
        self._client: DynamoDBStreamsClient | None = None
        self._arn = ""
        self._shards: list[str] = []  # their ids, in their order
        self._seen: dict[str, str] = {}  # shard to the number of the last record seen
        self._iterators: dict[str, str] = {}  # of shards of which none was seen yet
        self._looks = 0

    def begin(self) -> None:
        """Find where the stream ends: what is in it by now was for nobody who is here.

        Raises:
            LookupError: the table has no stream.
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: the stream cannot be read.
        """
        streams = self._connect().list_streams(TableName=self._table)["Streams"]
        if not streams:
            raise LookupError(f"The table {self._table} has no stream.")
        self._arn = streams[-1]["StreamArn"]
        self._list_shards("LATEST")

    def read(self) -> list[Record]:
        """Return what is new. Raises as ``begin`` does."""
        self._looks += 1
        if self._looks % LOOKS_BETWEEN_LISTS == 0:
            self._list_shards("TRIM_HORIZON")
        return [self._as_in_lambda(record) for shard in self._shards for record in self._new(shard)]

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()

    def _connect(self) -> DynamoDBStreamsClient:
        if self._client is None:
            import boto3
            from botocore.config import Config

            config = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1})
            self._client = boto3.client(
                "dynamodbstreams", region_name=self._region, endpoint_url=self._endpoint, config=config
            )
        return self._client

    def _list_shards(self, new: ShardIteratorTypeType) -> None:
        client = self._connect()
        page = client.describe_stream(StreamArn=self._arn)["StreamDescription"]
        found = page.get("Shards", [])
        while last := page.get("LastEvaluatedShardId"):
            page = client.describe_stream(StreamArn=self._arn, ExclusiveStartShardId=last)["StreamDescription"]
            found += page.get("Shards", [])
        # Their ids begin with when they were begun, so a parent comes before its children.
        known, self._shards = set(self._shards), sorted(shard["ShardId"] for shard in found)
        for shard in set(self._shards) - known:
            self._iterators[shard] = client.get_shard_iterator(
                StreamArn=self._arn, ShardId=shard, ShardIteratorType=new
            )["ShardIterator"]

    def _new(self, shard: str) -> Iterator[RecordTypeDef]:
        client = self._connect()
        while True:
            if shard in self._seen:
                iterator = client.get_shard_iterator(
                    StreamArn=self._arn,
                    ShardId=shard,
                    ShardIteratorType="AFTER_SEQUENCE_NUMBER",
                    SequenceNumber=self._seen[shard],
                )["ShardIterator"]
            elif (iterator := self._iterators.get(shard, "")) == "":
                return  # a shard that has ended without a record
            answer = client.get_records(ShardIterator=iterator)
            self._iterators[shard] = answer.get("NextShardIterator", "")
            yield from answer["Records"]
            if answer["Records"]:
                self._seen[shard] = answer["Records"][-1]["dynamodb"]["SequenceNumber"]
            if len(answer["Records"]) < LOOK:
                return

    def _as_in_lambda(self, record: RecordTypeDef) -> Record:
        """https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html has an event."""
        stream: dict[str, Any] = {**record["dynamodb"]}
        stream["ApproximateCreationDateTime"] = record["dynamodb"]["ApproximateCreationDateTime"].timestamp()
        for image in stream.keys() & {"Keys", "NewImage", "OldImage"}:
            stream[image] = _plain(stream[image])
        told: Record = {**record, "dynamodb": stream, "eventSourceARN": self._arn}
        if "userIdentity" in record:  # deleted by its TTL
            who = record["userIdentity"]
            told["userIdentity"] = {"principalId": who.get("PrincipalId"), "type": who.get("Type")}
        return told


def _plain(value: Any) -> Any:
    """Return a value of boto3's as JSON has it: bytes as base64."""
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value
