"""The page of web/: what it is told of its stack, and whom it may call."""

from __future__ import annotations

import json
from html import escape
from typing import Final, TypedDict
from urllib.parse import urlsplit

from local.child import ROOT

WEB: Final = ROOT / "web"
INDEX: Final = WEB / "index.html"

_OWN_ONLY: Final = "default-src 'self';"
_NO_SETTINGS: Final = 'name="settings" content="{}"'


class Settings(TypedDict, total=False):
    """What lies in its document as JSON; empty where nobody is asked who they are."""

    auth: str
    issuer: str
    client_id: str
    scopes: str
    token_origin: str
    socket: str


def document(index: str, settings: Settings) -> str:
    """Return index.html with the settings in it. Its policy lets it ask the issuer for tokens, and nobody else."""
    if not settings:
        return index
    assert _OWN_ONLY in index
    assert _NO_SETTINGS in index
    index = index.replace(_NO_SETTINGS, f'name="settings" content="{escape(json.dumps(settings))}"', 1)
    origins = " ".join(sorted(_origins(settings)))
    return index.replace(_OWN_ONLY, f"{_OWN_ONLY} connect-src 'self' {origins};", 1) if origins else index


def _origins(settings: Settings) -> set[str]:
    """Return where the issuer's document and its tokens are."""
    if not settings.get("issuer"):
        return set()
    found = set()
    for url in (settings["issuer"], settings.get("token_origin")):
        parts = urlsplit(url or "")
        if parts.netloc:
            found.add(f"{parts.scheme}://{parts.netloc}")
    return found
