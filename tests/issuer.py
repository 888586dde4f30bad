"""An issuer of tokens: its documents on a real HTTP server, its tokens made by joserfc, its keys by cryptography."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Self

from aiohttp import web
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

Json = dict[str, Any]

AUDIENCE = "app"

SECRET = "a secret of the tests, long enough"


CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


@cache
def key(name: str, algorithm: str = "RS256") -> RSAKey | ECKey | OKPKey:
    """Return the key of that name for an algorithm; making one takes a while."""
    if algorithm in CURVES:
        return ECKey.generate_key(CURVES[algorithm], {"kid": name})
    if algorithm in ("EdDSA", "Ed25519"):
        return OKPKey.generate_key("Ed25519", {"kid": name})
    return _rsa(name)


@cache
def _rsa(name: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": name})


def shared_token(claims: Mapping[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    """Return a token that is signed with a shared secret."""
    signer = OctKey.import_key(secret)
    return str(jwt.encode({"alg": algorithm}, dict(claims), signer, algorithms=[algorithm]))


class Issuer:
    """Publishes keys, and issues tokens.

    Attributes:
        url: its name.
        document: what is changed in its discovery document.
        keys: what it publishes.
        asked: how often each path was asked for.
        answer: what it answers instead, with everything.
        hang: what it waits for before it answers.
        was_asked: set when it waits.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.document: Json = {}
        self.keys: list[Any] = [public("one")]
        self.asked: list[str] = []
        self.answer: web.Response | None = None
        self.hang: asyncio.Event | None = None
        self.was_asked = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """Serve its documents on a free port."""
        app = web.Application()
        runner = web.AppRunner(app, shutdown_timeout=0.1)

        async def respond(request: web.Request) -> web.Response:
            return await issuer.respond(request)

        app.router.add_get("/{path:.*}", respond)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        issuer = cls(f"http://127.0.0.1:{runner.addresses[0][1]}/realm")
        try:
            yield issuer
        finally:
            await runner.cleanup()

    async def respond(self, request: web.Request) -> web.Response:
        """Answer with one of the two documents."""
        self.asked.append(request.path)
        if self.hang is not None:
            self.was_asked.set()
            await self.hang.wait()
        if self.answer is not None:
            return web.Response(status=self.answer.status, body=self.answer.body, headers=self.answer.headers)
        if request.path == "/realm/.well-known/openid-configuration":
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.document})
        if request.path == "/realm/moved":
            raise web.HTTPFound("/realm/keys")
        assert request.path == "/realm/keys"
        return web.json_response({"keys": self.keys})

    def claims(self, now: int, **changed: Any) -> Json:
        """Return good claims with some of them changed; None leaves one out.

        Args:
            now: seconds since 1970.
        """
        claims = {"iss": self.url, "sub": "user-1", "aud": AUDIENCE, "exp": now + 600, **changed}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, claims: Mapping[str, Any], signer: str = "one", **header: Any) -> str:
        """Return a token signed with the key of that name."""
        header = {"alg": "RS256", "kid": signer, **header}
        header = {name: value for name, value in header.items() if value is not None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # of EdDSA by that name, which issuers still use
            return str(jwt.encode(header, dict(claims), key(signer, header["alg"]), algorithms=[header["alg"]]))


def public(name: str, algorithm: str = "RS256", **more: Any) -> Json:
    """Return the entry of a key in the published set."""
    return {**key(name, algorithm).as_dict(private=False), "use": "sig", **more}
