"""Images and files: in as they come, kept, and out again the same."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec
import pytest
from tailrace.conversation.parts import Input, check_parts, parts_metadata, read_parts, split_input
from tailrace.errors import TooLarge, Unprocessable
from tailrace.providers import FilePart, ImagePart

IMAGE = {"type": "image", "media_type": "image/png", "data": "iVBORw0KGgo="}
FILE = {"type": "file", "url": "https://example.com/a.pdf", "name": "a.pdf"}


def test_text_and_parts() -> None:
    """The text apart, the rest in its order; both are what they were after having been stored."""
    given = [{"type": "text", "text": "What"}, IMAGE, {"type": "text", "text": "is this?"}, FILE]
    text, parts = split_input(msgspec.convert(given, Input))
    assert text == "What\nis this?"
    assert parts == [
        ImagePart(media_type="image/png", data="iVBORw0KGgo="),
        FilePart(url="https://example.com/a.pdf", name="a.pdf"),
    ]
    stored = parts_metadata(parts)
    assert stored == {"parts": [IMAGE, FILE]}
    assert read_parts(stored) == parts
    assert split_input("just text") == ("just text", ())
    assert parts_metadata(()) == {}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "image", "media_type": "image/png"}, "it must have either data or url"),
        ({**IMAGE, "url": "https://example.com/"}, "it must have either data or url"),
        ({"type": "image", "url": "file:///etc/passwd"}, "its url must begin with https:// or http://"),
        ({"type": "image", "url": "https://example.com/", "media_type": "x"}, "its media_type is none"),
        ({"type": "image", "data": "AA=="}, 'it must have a media_type, such as "image/png"'),
        ({**IMAGE, "media_type": "application/pdf"}, "its media_type must begin with image/"),
        ({**IMAGE, "data": "not base64!"}, "its data must be base64"),
        ({**IMAGE, "data": "水"}, "its data must be base64"),
        ({**IMAGE, "data": ""}, "its data is empty"),
    ],
)
def test_a_part_that_cannot_be(part: dict[str, Any], said: str) -> None:
    """The message says which and why."""
    parts = msgspec.convert([IMAGE, part], list[ImagePart | FilePart])
    with pytest.raises(Unprocessable) as caught:
        check_parts(parts)
    assert caught.value.message == f"Image or file 2 of the input: {said}."


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/a.png",
        "http://LOCALHOST:8080/a.png",
        "http://app.localhost./a.png",
        "http://127.0.0.1/a.png",
        "http://127.1/a.png",
        "http://2130706433/a.png",
        "http://0x7f000001/a.png",
        "http://0/a.png",
        "http://10.0.0.7/a.png",
        "http://192.168.1.1:8000/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/a.png",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://[::ffff:127.0.0.1]/a.png",
        "http://metadata.google.internal/",
        "http://printer.local/a.png",
        "http://intranet/a.png",
        "https://user:password@example.com/a.png",
        "https://example.com:port/a.png",
        "https://[broken/a.png",
        "https:///a.png",
    ],
)
def test_an_address_that_only_the_network_sees(url: str) -> None:
    """It is never fetched here, and nobody else is sent there, however it is written."""
    with pytest.raises(
        Unprocessable, match=r"^Image or file 1 of the input: its url must be one of the public internet\.$"
    ):
        check_parts([ImagePart(url=url)])


@pytest.mark.parametrize(
    "url",
    ["https://example.com/a.png", "http://1.1.1.1/a.png", "https://[2606:4700::1111]/a", "https://local.example.com"],
)
def test_an_address_of_the_internet(url: str) -> None:
    """Is handed on."""
    check_parts([ImagePart(url=url)])


def test_parts_that_are_too_large() -> None:
    """An item of the table cannot hold them; the message says what to do instead."""
    data = b64encode(bytes(200_000)).decode()
    check_parts([ImagePart(media_type="image/png", data=data)])
    with pytest.raises(TooLarge, match=r"may have 300000 bytes as base64; give a URL instead\.$"):
        check_parts([ImagePart(media_type="image/png", data=data)] * 2)


def test_metadata_of_ones_own_under_that_name() -> None:
    """It is refused rather than misread."""
    with pytest.raises(Unprocessable, match=r"^metadata\.parts is for images and files: "):
        read_parts({"parts": 5})
