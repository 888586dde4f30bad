"""Items as they are put, held against pynamodb's own serializer, which takes too long for each start and each flush."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynamodb.attributes import Attribute, BinaryAttribute, BooleanAttribute, NumberAttribute, UnicodeSetAttribute
from tailrace.store.items import (
    Item,
    KeyItem,
    MessageItem,
    SegmentItem,
    segment_key,
    serialized_segment,
)

KINDS: Final = sorted(Item.__subclasses__(), key=lambda kind: kind.__name__)


def values_of(attribute: Attribute[Any]) -> st.SearchStrategy[Any]:
    """Return what may be put under an attribute."""
    if isinstance(attribute, UnicodeSetAttribute):
        return st.sets(st.text(min_size=1), min_size=1)
    if isinstance(attribute, NumberAttribute):
        return st.integers(-(2**53), 2**53)
    if isinstance(attribute, BinaryAttribute):
        return st.binary()
    return st.booleans() if isinstance(attribute, BooleanAttribute) else st.text()


def values_for(kind: type[Item]) -> st.SearchStrategy[Mapping[str, Any]]:
    """Return what an item of a kind may be made of beside its key; what may be missing is now and then None."""
    known = {name: each for name, each in kind.get_attributes().items() if name not in ("pk", "sk")}
    return st.fixed_dictionaries(
        {name: st.none() | values_of(each) if each.null else values_of(each) for name, each in known.items()}
    )


@given(st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), values_for(kind))), st.text(), st.text())
def test_an_item_is_put_as_pynamodb_says(
    kind_and_values: tuple[type[Item], Mapping[str, Any]], pk: str, sk: str
) -> None:
    kind, values = kind_and_values
    expected = kind(**{"pk": pk, "sk": sk, **values}).to_dynamodb_dict()
    found = kind.serialized({"pk": pk, "sk": sk}, **values)
    assert in_order(found) == in_order(expected)


def in_order(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an item with its sets as sets."""
    return {
        name: {kind: set(value) if kind == "SS" else value for kind, value in typed.items()}
        for name, typed in item.items()
    }


@given(values_for(SegmentItem), st.integers(0, 99_999_999))
def test_a_segment_is_put_as_its_item_says(values: Mapping[str, Any], number: int) -> None:
    """The hot write is written by hand; whoever changes the one has to change the other."""
    assert serialized_segment("m", number, **values) == SegmentItem.serialized(segment_key("m", number), **values)


def test_an_item_that_lacks_what_every_one_has_is_not_put() -> None:
    with pytest.raises(ValueError, match=r"^A KeyItem lacks digest\.$"):
        KeyItem.serialized({"pk": "K#1", "sk": "K"}, message="m", expires=1)
    with pytest.raises(KeyError, match="mesage"):
        KeyItem.serialized({"pk": "K#1", "sk": "K"}, mesage="m", digest=b"1", expires=1)


def test_an_update_may_have_some_of_them() -> None:
    assert MessageItem.attributes(status="completed", seq=3, error=None) == {
        "status": {"S": "completed"},
        "seq": {"N": "3"},
    }
