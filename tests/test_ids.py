"""Identifiers: they say where a message lies and nothing else."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tailrace.errors import NotFound
from tailrace.ids import conversation_tag, message_address, new_conversation_id, new_message_id


def test_a_message_id_leads_back_to_its_conversation_and_position() -> None:
    """The address in an id is the one it was made for."""
    conversation = new_conversation_id(os.urandom)
    address = message_address(new_message_id(conversation, 1_790_000_000_123_456, os.urandom))
    assert address.tag == conversation_tag(conversation)
    assert address.position == 1_790_000_000_123_456


def test_a_message_id_does_not_reveal_its_conversation() -> None:
    """Who has a link to a message has no link to the conversation."""
    conversation = new_conversation_id(os.urandom)
    assert conversation not in new_message_id(conversation, 1, os.urandom)


def test_two_ids_of_one_position_differ() -> None:
    """128 bits of an id are random."""
    conversation = new_conversation_id(os.urandom)
    assert len({new_message_id(conversation, 1, os.urandom) for _ in range(1000)}) == 1000


@given(st.text(max_size=60))
def test_anything_else_is_not_found(text: str) -> None:
    """Whatever a client sends as an id is either ours or 404, never an error of another kind."""
    for parse in (conversation_tag, message_address):
        with pytest.raises(NotFound, match="No such"):
            parse(text)


def test_another_spelling_of_an_id_is_not_found() -> None:
    """One message has one id: padding and stray bits are refused."""
    message = new_message_id(new_conversation_id(os.urandom), 1, os.urandom)
    # 35 bytes are 47 characters, the last of which has 2 spare bits: of each 4 values only one is ours.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    stray = message[:-1] + alphabet[alphabet.index(message[-1]) + 1]
    for spelling in (message + "=", message + "\n", f" {message}", stray):
        with pytest.raises(NotFound):
            message_address(spelling)
