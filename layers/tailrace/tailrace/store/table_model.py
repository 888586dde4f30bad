"""The table as a pynamodb model, which creates it: on one machine and in tests. In AWS template.yaml does."""

from __future__ import annotations

from typing import Any

from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex, KeysOnlyProjection
from pynamodb.models import Model


class ByOwner(GlobalSecondaryIndex[Model]):  # type: ignore[no-untyped-call]  # pynamodb leaves it untyped
    """An owner's conversations by age. Eventually consistent: a new one may be missing for a moment."""

    class Meta:
        index_name = "by_owner"
        projection = AllProjection()

    owner = UnicodeAttribute(hash_key=True)
    created = NumberAttribute(range_key=True)


class BySweep(GlobalSecondaryIndex[Model]):  # type: ignore[no-untyped-call]  # pynamodb leaves it untyped
    """What the sweep has to look at, by age: replies that have not ended and conversations that were deleted.
    Sparse, so that it never scans."""

    class Meta:
        index_name = "by_sweep"
        projection = KeysOnlyProjection()

    sweep = UnicodeAttribute(hash_key=True)
    created = NumberAttribute(range_key=True)


class BySocket(GlobalSecondaryIndex[Model]):  # type: ignore[no-untyped-call]  # pynamodb leaves it untyped
    """A socket's subscriptions, to be removed when it goes. Sparse: nothing else has ``socket``."""

    class Meta:
        index_name = "by_socket"
        projection = KeysOnlyProjection()

    socket = UnicodeAttribute(hash_key=True)


def create_table(table: str, region: str, endpoint_url: str) -> None:
    """Create the table where there is none."""
    meta: dict[str, Any] = {
        "table_name": table,
        "region": region,
        "host": endpoint_url,
        "billing_mode": "PAY_PER_REQUEST",
        "stream_view_type": "NEW_AND_OLD_IMAGES",
    }
    members: dict[str, Any] = {
        "Meta": type("Meta", (), meta),
        "pk": UnicodeAttribute(hash_key=True),
        "sk": UnicodeAttribute(range_key=True),
        "by_owner": ByOwner(),
        "by_sweep": BySweep(),
        "by_socket": BySocket(),
    }
    model: type[Model] = type("Table", (Model,), members)
    if not model.exists():
        model.create_table(wait=True)
        model._get_connection().update_time_to_live("expires")
