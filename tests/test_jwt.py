"""Tokens: whom they speak for, and in which words those are refused that speak for nobody."""

from __future__ import annotations

import asyncio
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any

import boto3
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tailrace.backend import Backend
from tailrace.errors import ConfigurationError, InsufficientScope, IssuerUnavailable, Unauthenticated
from tailrace.identity.jwt.claims import read_claims
from tailrace.identity.jwt.issuer import FRESH_SECONDS, PAUSE_SECONDS, RETRY_SECONDS, STALE_SECONDS
from tailrace.identity.jwt.issuer import Issuer as KnownIssuer
from tailrace.identity.jwt.signed import PUBLISHED, read_header, verified_payload
from tailrace.identity.scopes import check_scope
from tailrace.settings import Settings
from tailrace.testing import ManualClock

from tests.issuer import AUDIENCE, SECRET, Issuer, key, public, shared_token

pytestmark = pytest.mark.anyio


class Door:
    """Lets tokens in, at a time that is turned by hand."""

    def __init__(self, issuer: Issuer, **settings: Any) -> None:
        self.clock = ManualClock()
        self.issuer = issuer
        given = {"jwt_issuers": (issuer.url,), "jwt_audience": (AUDIENCE,), **settings}
        self.backend = Backend(Settings(auth="jwt", **given), clock=self.clock)

    @property
    def now(self) -> int:
        return self.clock.now() // 1_000_000

    def token(self, signer: str = "one", header: dict[str, Any] | None = None, **claims: Any) -> str:
        return self.issuer.token(self.issuer.claims(self.now, **claims), signer, **(header or {}))

    async def owner(self, token: str) -> str:
        return await self.backend.auth.owner(token)

    async def fetched(self) -> None:
        """Wait until keys that are fetched beside requests are there."""
        assert self.backend.auth._tokens is not None
        for signer in self.backend.auth._tokens._signers.values():
            assert isinstance(signer, KnownIssuer)
            await asyncio.gather(*signer._beside.values())

    async def refuses(self, token: str, said: str) -> None:
        with pytest.raises(Unauthenticated, match=said) as caught:
            await self.owner(token)
        assert caught.value.challenge == "invalid_token"


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """A deployment that believes an issuer."""
    async with Issuer.open() as issuer:
        door = Door(issuer)
        yield door
        await door.backend.close()


@pytest.fixture
async def shared_door() -> AsyncIterator[Door]:
    """A deployment that shares a secret with whoever signs."""
    issuer = Issuer("https://issuer.example")
    door = Door(issuer, jwt_secret=SECRET)
    yield door
    await door.backend.close()


# ---- what is let in ----


@pytest.mark.parametrize("algorithm", PUBLISHED)
async def test_a_token_of_the_issuer(door: Door, algorithm: str) -> None:
    """Its subject is the owner; the issuer was asked once, for its two documents. joserfc has signed it."""
    door.issuer.keys = [public("one", algorithm), public("two", algorithm)]
    for _ in range(3):
        assert await door.owner(door.token(header={"alg": algorithm})) == "user-1"
    assert door.issuer.asked == ["/realm/.well-known/openid-configuration", "/realm/keys"]


async def test_a_token_of_a_shared_secret(shared_door: Door) -> None:
    """Nobody is asked for keys; what the settings say of issuer and audience counts all the same."""
    claims = shared_door.issuer.claims(shared_door.now)
    assert await shared_door.owner(shared_token(claims)) == "user-1"
    await shared_door.refuses(shared_token({**claims, "iss": "another"}), r"^The token is from another issuer\.$")


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["another", AUDIENCE]},
        {"aud": None, "client_id": AUDIENCE},
        {"nbf": 0},
        {"sub": "x" * 255},
        {"exp": 4102444800.5},
        {"more": {"deep": [1]}},
    ],
    ids=str,
)
async def test_claims_that_are_good(door: Door, claims: dict[str, Any]) -> None:
    """Audience as a list or Cognito's client_id, times with fractions, claims that nobody asked for."""
    assert await door.owner(door.token(**claims)) == claims.get("sub", "user-1")


async def test_a_key_without_a_name(door: Door) -> None:
    """A token that names no key is of the only one; where there are several it is of none."""
    assert await door.owner(door.token(header={"kid": None})) == "user-1"
    await door.clock.advance(FRESH_SECONDS + 1)
    door.issuer.keys.append(public("two"))
    assert await door.owner(door.token(header={"kid": None})) == "user-1"  # the keys are fetched beside this one
    await door.fetched()
    await door.refuses(door.token(header={"kid": None}), r"that its issuer does not publish\.$")


# ---- what is refused, and in which words ----


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"exp": None}, r"^The token has no expiry\.$"),
        ({"iss": "https://another.example"}, r"^The token is from another issuer\.$"),
        ({"iss": None}, r"^The token is from another issuer\.$"),
        ({"aud": "another"}, r"^The token is for another audience\.$"),
        ({"aud": ["another", "third"]}, r"^The token is for another audience\.$"),
        ({"aud": []}, r"^The token is for another audience\.$"),
        ({"aud": None}, r"^The token is for another audience\.$"),
        ({"aud": "another", "client_id": AUDIENCE}, r"^The token is for another audience\.$"),
        ({"sub": None}, r"^The token must have a subject of 1 to 255 characters\.$"),
        ({"sub": ""}, r"^The token must have a subject of 1 to 255 characters\.$"),
        ({"sub": "x" * 256}, r"^The token must have a subject of 1 to 255 characters\.$"),
        ({"aud": {"a": 1}}, r"^The token is not a signed JSON Web Token\.$"),
    ],
    ids=str,
)
async def test_claims_that_are_not_for_us(door: Door, claims: dict[str, Any], said: str) -> None:
    """A good signature is not enough."""
    await door.refuses(door.token(**claims), said)


@pytest.mark.parametrize(("seconds", "is_good"), [(659, True), (660, False)])
async def test_a_token_expires(door: Door, seconds: int, is_good: bool) -> None:
    """A minute after its time at the latest: clocks differ."""
    token = door.token()
    assert await door.owner(token)
    await door.clock.advance(seconds)
    if is_good:
        assert await door.owner(token) == "user-1"
    else:
        await door.refuses(token, r"^The token has expired\.$")


async def test_a_token_of_tomorrow(door: Door) -> None:
    """Not before its time, give or take a minute."""
    token = door.token(nbf=door.now + 100)
    await door.refuses(token, r"^The token is not valid yet\.$")
    await door.clock.advance(40)
    assert await door.owner(token) == "user-1"


def piece(value: object) -> str:
    """Return JSON in base64url."""
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256", "ES256K", "RS1", "rs256", ""])
async def test_the_token_does_not_choose_its_algorithm(door: Door, algorithm: str) -> None:
    """Whatever it says beside what issuers publish keys for, no signature is looked at."""
    unsigned = f"{piece({'alg': algorithm})}.{piece(door.issuer.claims(door.now))}."
    said = r"^The token's algorithm is not accepted: it must be RS256, .*, Ed25519\.$"
    await door.refuses(unsigned, said)
    await door.refuses(unsigned + "AAAA", said)
    assert door.issuer.asked == []


async def test_a_published_key_is_no_secret(door: Door) -> None:
    """The old confusion: HS256, with the public key's text as the secret."""
    signed = f"{piece({'alg': 'HS256', 'kid': 'one'})}.{piece(door.issuer.claims(door.now))}"
    for text in (key("one").as_pem(private=False), json.dumps(public("one")).encode()):
        signature = urlsafe_b64encode(hmac.digest(text, signed.encode(), "sha256")).rstrip(b"=").decode()
        await door.refuses(f"{signed}.{signature}", r"^The token's algorithm is not accepted")


@pytest.mark.parametrize("algorithm", ["RS256", "HS384", "HS512", "none"])
async def test_a_shared_secret_has_one_algorithm(shared_door: Door, algorithm: str) -> None:
    """Nothing but HS256, even with the right secret."""
    claims = shared_door.issuer.claims(shared_door.now)
    if algorithm.startswith("HS"):
        token = shared_token(claims, algorithm=algorithm)
    elif algorithm == "RS256":
        token = shared_door.issuer.token(claims)
    else:
        token = f"{piece({'alg': 'none'})}.{piece(claims)}."
    await shared_door.refuses(token, r"^The token's algorithm is not accepted: it must be HS256\.$")


async def test_a_key_has_one_algorithm(door: Door) -> None:
    """If the issuer says which, no other is accepted."""
    door.issuer.keys = [public("one", alg="RS512")]
    await door.refuses(door.token(), r"^The token's algorithm is not the one of its key\.$")
    assert await door.owner(door.token(header={"alg": "RS512"})) == "user-1"


async def test_a_key_is_of_one_kind(door: Door) -> None:
    """An RSA key for any algorithm of RSA, and no other; a curve for its own."""
    await door.refuses(door.token(header={"alg": "ES256"}), r"^The token's algorithm is not the one of its key\.$")
    door.issuer.keys = [public("one", "ES384")]
    await door.clock.advance(FRESH_SECONDS + 1)
    assert await door.owner(door.token(header={"alg": "RS256"})) == "user-1"  # by the keys of an hour ago
    await door.fetched()
    for algorithm in ("RS256", "PS256", "ES256", "ES512", "EdDSA"):
        await door.refuses(
            door.token(header={"alg": algorithm}), r"^The token's algorithm is not the one of its key\.$"
        )
    assert await door.owner(door.token(header={"alg": "ES384"})) == "user-1"


async def test_two_keys_without_a_name_of_two_kinds(door: Door) -> None:
    """A token that names no key is of the only one that there is for its algorithm."""
    door.issuer.keys = [public("one"), public("one", "ES256")]
    assert await door.owner(door.token(header={"kid": None})) == "user-1"
    assert await door.owner(door.token(header={"kid": None, "alg": "ES256"})) == "user-1"


async def test_another_signature(door: Door, shared_door: Door) -> None:
    """Another key under the same name, another secret, another payload under the signature, no signature."""
    said = r"^The token's signature is wrong\.$"
    await door.refuses(door.token("two", {"kid": "one"}), said)
    header, payload, signature = door.token().split(".")
    await door.refuses(f"{header}.{piece(door.issuer.claims(door.now, sub='admin'))}.{signature}", said)
    await door.refuses(f"{header}.{payload}.", said)
    await door.refuses(f"{header}.{payload}.{signature[:-2]}", said)
    claims = shared_door.issuer.claims(shared_door.now)
    await shared_door.refuses(shared_token(claims, secret="another secret, which is long enough"), said)
    header, payload, _ = shared_token(claims).split(".")
    await shared_door.refuses(f"{header}.{payload}.", said)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b",
        "..",
        "a.b.c.d.e",
        "é.b.c",
        "a b.c.d",
        "e30.e30.e30=",
        "a" * 5 + ".e30.e30",
        piece([]) + ".e30.AAAA",
        piece({"kid": "one"}) + ".e30.AAAA",
        piece({"alg": 5}) + ".e30.AAAA",
        piece({"alg": "RS256", "kid": 5}) + ".e30.AAAA",
        "_____w.e30.AAAA",
        piece({"alg": "RS256", "x": "x" * 20_000}) + ".e30.AAAA",
    ],
    ids=lambda text: text[:20],
)
async def test_what_is_no_token(door: Door, token: str) -> None:
    """It is refused before anybody is asked for keys."""
    await door.refuses(token, r"^The token is not a signed JSON Web Token\.$")
    assert door.issuer.asked == []


@pytest.mark.parametrize("depth", [1_000, 3_000])
async def test_a_token_that_nests(door: Door, depth: int) -> None:
    """In its header, and in claims that somebody signed: no token, and nothing worse."""
    deep = urlsafe_b64encode(b'{"alg":' + b"[" * depth).rstrip(b"=").decode()
    await door.refuses(f"{deep}.e30.AAAA", r"^The token is not a signed JSON Web Token\.$")
    with pytest.raises(Unauthenticated, match="not a signed JSON Web Token"):
        read_claims(b'{"aud":' + b"[" * depth, issuer=None, audience=(), now=0.0)


async def test_an_extension_is_not_understood(door: Door) -> None:
    """RFC 7515, section 4.1.11: what is critical and not understood makes the token invalid. Nor has a token its claims
    elsewhere (RFC 7797)."""
    header = {"alg": "RS256", "kid": "one"}
    token = f"{piece({**header, 'crit': ['exp'], 'exp': 1})}.e30.AAAA"
    await door.refuses(token, r"^The token asks for an extension that is not understood here\.$")
    for claims in ("e30", ""):
        detached = f"{piece({**header, 'crit': ['b64'], 'b64': False})}.{claims}.AAAA"
        await door.refuses(detached, r"^The token is not a signed JSON Web Token\.$")


# ---- the issuer's keys ----


async def test_a_new_key_is_fetched_when_it_is_used(door: Door) -> None:
    """An issuer that changes its key: the new one is accepted as soon as it may be asked for, the old one no more."""
    old = door.token()
    assert await door.owner(old) == "user-1"
    door.issuer.keys = [public("two")]
    await door.refuses(door.token("two"), r"^The token is signed with a key that its issuer does not publish\.$")
    await door.clock.advance(PAUSE_SECONDS)
    assert await door.owner(door.token("two")) == "user-1"
    await door.refuses(old, r"does not publish\.$")


async def test_names_of_keys_that_are_made_up_ask_once_a_minute(door: Door) -> None:
    """Nobody makes us flood the issuer."""
    assert await door.owner(door.token())
    await door.clock.advance(PAUSE_SECONDS)
    for number in range(20):
        await door.refuses(door.token(header={"kid": f"made up {number}"}), r"does not publish\.$")
    assert door.issuer.asked.count("/realm/keys") == 2


async def test_requests_at_once_fetch_once(door: Door) -> None:
    """The first requests of an environment all wait for the same keys."""
    token = door.token()
    assert await asyncio.gather(*(door.owner(token) for _ in range(10))) == ["user-1"] * 10
    assert door.issuer.asked.count("/realm/keys") == 1


async def test_keys_grow_old(door: Door) -> None:
    """After an hour they are fetched again, beside the request that finds it out; then a key that was taken back is no
    longer believed."""
    assert await door.owner(door.token())
    door.issuer.keys = []
    await door.clock.advance(FRESH_SECONDS + 1)
    assert await door.owner(door.token())
    await door.fetched()
    await door.refuses(door.token(), r"does not publish\.$")


async def test_an_issuer_that_hangs_delays_nobody_whose_key_is_known(door: Door) -> None:
    """It takes the connection and never answers: requests go on with the keys of an hour ago, and ask once."""
    assert await door.owner(door.token())
    hanging = door.issuer.hang = asyncio.Event()
    await door.clock.advance(FRESH_SECONDS + 1)
    asked = len(door.issuer.asked)
    async with asyncio.timeout(2):
        assert await asyncio.gather(*(door.owner(door.token()) for _ in range(8))) == ["user-1"] * 8
        assert await door.owner(door.token()) == "user-1"
        await door.issuer.was_asked.wait()
    assert len(door.issuer.asked) == asked + 1
    hanging.set()
    await door.fetched()
    assert door.issuer.asked.count("/realm/keys") == 2


async def test_whoever_waited_for_one_fetch_does_not_wait_for_another(door: Door) -> None:
    """Eight first requests at once, and an issuer that is away: it is asked once, and all are told."""
    door.issuer.answer = web.Response(status=500)
    found = await asyncio.gather(*(door.owner(door.token()) for _ in range(8)), return_exceptions=True)
    assert all(isinstance(each, IssuerUnavailable) for each in found)
    assert len(door.issuer.asked) == 1


async def test_an_issuer_that_is_away(door: Door) -> None:
    """For a day the keys that are known will do, and it is asked every few seconds; then nobody is let in."""
    assert await door.owner(door.token())
    door.issuer.answer = web.Response(status=500)
    for _ in range(3):
        await door.clock.advance(FRESH_SECONDS + 1)
        assert await door.owner(door.token()) == "user-1"
        await door.fetched()
    asked = len(door.issuer.asked)
    assert await door.owner(door.token()) == "user-1"
    await door.fetched()
    assert len(door.issuer.asked) == asked
    await door.clock.advance(STALE_SECONDS)
    with pytest.raises(IssuerUnavailable, match=r"^The token cannot be checked now\. Please try again\.$"):
        await door.owner(door.token())


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=404),
        web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}),
        web.Response(body=b"<html>"),
        web.Response(body=b"{}"),
    ],
    ids=["no document", "elsewhere", "no json", "nothing in it"],
)
async def test_an_issuer_that_answers_nonsense(door: Door, answer: web.Response) -> None:
    """Nobody is let in, the caller hears that it is not the token's fault, and soon it is tried again."""
    door.issuer.answer = answer
    for _ in range(2):
        with pytest.raises(IssuerUnavailable, match="cannot be checked now") as caught:
            await door.owner(door.token())
        assert caught.value.status == 503
    assert len(door.issuer.asked) == 1
    door.issuer.answer = None
    await door.clock.advance(RETRY_SECONDS)
    assert await door.owner(door.token()) == "user-1"


@pytest.mark.parametrize(
    "document", [{"issuer": "http://another.example"}, {"jwks_uri": "ftp://127.0.0.1/keys"}, {"jwks_uri": 5}], ids=str
)
async def test_a_document_of_somebody_else(door: Door, document: dict[str, Any]) -> None:
    """OpenID Connect Discovery, section 4.3: the issuer in the document must be the one that was asked."""
    door.issuer.document = document
    with pytest.raises(IssuerUnavailable):
        await door.owner(door.token())
    assert "/realm/keys" not in door.issuer.asked


async def test_a_document_that_is_too_large(door: Door) -> None:
    """Good as it may be: nobody fills our memory."""
    door.issuer.document = {"padding": "x" * 300_000}
    with pytest.raises(IssuerUnavailable):
        await door.owner(door.token())


async def test_keys_that_have_moved(door: Door) -> None:
    """A redirect is not followed: nobody but the issuer's own document says where its keys are."""
    door.issuer.document = {"jwks_uri": f"{door.issuer.url}/moved"}
    with pytest.raises(IssuerUnavailable):
        await door.owner(door.token())
    assert "/realm/keys" not in door.issuer.asked


async def test_an_issuer_that_is_not_there(unused_port: int) -> None:
    """A connection that is refused is the same to the caller."""
    issuer = Issuer(f"http://127.0.0.1:{unused_port}")
    door = Door(issuer)
    with pytest.raises(IssuerUnavailable):
        await door.owner(door.token())
    await door.backend.close()


async def test_keys_that_are_not_for_this(door: Door) -> None:
    """What encrypts, is of another kind, too weak, too large, or nonsense, is as good as not published."""
    entry = public("one")
    door.issuer.keys = [
        {**entry, "use": "enc"},
        {**entry, "kty": "EC"},
        {**entry, "alg": "ES256"},
        {**entry, "alg": "HS256"},
        {**public("one", "ES256"), "crv": "secp256k1"},
        {**public("one", "ES256"), "x": "AAAA"},
        {**public("one", "EdDSA"), "crv": "X25519"},
        {**entry, "kid": 5},
        {**entry, "e": "AQ"},
        {**entry, "n": entry["n"][:100]},
        {**entry, "n": entry["n"] * 5},
        {**entry, "n": "!"},
        {"kty": "oct", "k": "AAAA", "kid": "one"},
        {"kty": "oct", "k": "A" * 43, "kid": "one", "alg": "HS256"},
        "nonsense",
        None,
    ]
    await door.refuses(door.token(), r"does not publish\.$")
    door.issuer.keys.append(entry)
    await door.clock.advance(PAUSE_SECONDS)
    assert await door.owner(door.token()) == "user-1"


# ---- the shared secret ----


async def test_a_secret_from_secrets_manager(emulator_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is in the settings; one that is too short, or is not there, is not the caller's fault."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", emulator_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    secrets = boto3.client("secretsmanager")
    secrets.create_secret(Name="/tailrace/jwt", SecretString=SECRET)
    secrets.create_secret(Name="/tailrace/short", SecretString="short")
    issuer = Issuer("https://issuer.example")
    for name, said in (("jwt", None), ("short", "must have 32 bytes"), ("missing", "secret /tailrace/missing cannot")):
        door = Door(issuer, jwt_secret_id=f"/tailrace/{name}")
        token = shared_token(issuer.claims(door.now))
        if said is None:
            assert await door.owner(token) == "user-1"
        else:
            with pytest.raises(ConfigurationError, match=said):
                await door.owner(token)
        await door.backend.close()


async def test_a_secret_that_is_rotated(emulator_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a deployment: the new one counts once the old one has been kept for its time, and the old one no more."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", emulator_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr("tailrace.aws.secrets.KEY_MAX_AGE", 0)
    secrets = boto3.client("secretsmanager")
    secrets.create_secret(Name="/tailrace/rotated", SecretString=SECRET)
    door = Door(Issuer("https://issuer.example"), jwt_secret_id="/tailrace/rotated")
    old, new = (shared_token(door.issuer.claims(door.now), secret=each) for each in (SECRET, SECRET[::-1]))
    assert await door.owner(old) == "user-1"
    await door.refuses(new, r"^The token's signature is wrong\.$")
    secrets.put_secret_value(SecretId="/tailrace/rotated", SecretString=SECRET[::-1])
    assert await door.owner(new) == "user-1"
    await door.refuses(old, r"^The token's signature is wrong\.$")
    await door.backend.close()


# ---- the signature itself ----


@pytest.mark.parametrize("algorithm", PUBLISHED)
async def test_a_signature_with_one_bit_flipped(door: Door, algorithm: str) -> None:
    """Of every kind, at any place."""
    door.issuer.keys = [public("one", algorithm)]
    token = door.token(header={"alg": algorithm})
    signed, _, signature = token.rpartition(".")
    raw = urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    for place in range(0, 8 * len(raw), 37):
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        text = urlsafe_b64encode(flipped).rstrip(b"=").decode()
        await door.refuses(f"{signed}.{text}", r"^The token's signature is wrong\.$")
    assert await door.owner(token) == "user-1"


@given(st.text(st.characters(codec="ascii"), max_size=60) | st.from_regex(r"[\w-]+\.[\w-]+\.[\w-]*", fullmatch=True))
def test_any_text_is_a_token_or_is_none(text: str) -> None:
    """And nothing worse than a refusal."""
    with pytest.raises(Unauthenticated):
        verified_payload(text, SECRET.encode(), read_header(text).algorithm)


# ---- several issuers, claims by other names, scopes ----


async def test_several_issuers() -> None:
    """Each signs for itself. The first one's owners are called as its tokens call them, those of the others have their
    issuer before their name."""
    async with Issuer.open() as first, Issuer.open() as second:
        door = Door(first, jwt_issuers=(first.url, second.url))
        second.keys = [public("two")]
        assert await door.owner(door.token()) == "user-1"
        of_second = second.token(second.claims(door.now), "two")
        assert await door.owner(of_second) == f"{second.url} user-1"
        posing = second.token(first.claims(door.now), "two")
        await door.refuses(posing, r"^The token is signed with a key that its issuer does not publish\.$")
        await door.refuses(first.token({**first.claims(door.now), "iss": "https://third.example"}), "another issuer")
        await door.refuses(first.token(first.claims(door.now, iss=None)), "another issuer")
        named = first.token(first.claims(door.now, sub=f"{second.url} user-1"))
        await door.refuses(named, r"^The token's subject cannot be used here\.$")
        await door.backend.close()


async def test_an_issuer_that_is_away_stops_none_of_the_others() -> None:
    """Each has keys of its own."""
    async with Issuer.open() as first, Issuer.open() as second:
        door = Door(first, jwt_issuers=(first.url, second.url))
        first.answer = web.Response(status=500)
        with pytest.raises(IssuerUnavailable):
            await door.owner(door.token())
        assert await door.owner(second.token(second.claims(door.now))) == f"{second.url} user-1"
        await door.backend.close()


@pytest.mark.parametrize(
    ("value", "owner"), [("ada@example.com", "ada@example.com"), (17, "17"), ("", None), (None, None), (True, None)]
)
async def test_an_owner_by_another_claim(shared_door: Door, value: Any, owner: str | None) -> None:
    """A text or a whole number; who has none is nobody."""
    door = Door(shared_door.issuer, jwt_secret=SECRET, jwt_owner_claim="https://app.example/account")
    claims = door.issuer.claims(door.now) | {"https://app.example/account": value}
    if owner is not None:
        assert await door.owner(shared_token(claims)) == owner
    else:
        said = r"^The token must have the claim https://app\.example/account, a text of 1 to 255 characters\.$"
        await door.refuses(shared_token(claims), said)
    await door.backend.close()


@pytest.mark.parametrize("subject", ["a\r\nb", "a\x00", "a\u2028b", "\x7f"])
async def test_a_subject_that_cannot_be_printed(shared_door: Door, subject: str) -> None:
    """Nothing that breaks a line of a log or of a header names an owner."""
    claims = shared_door.issuer.claims(shared_door.now, sub=subject)
    await shared_door.refuses(shared_token(claims), r"^The token must have a subject of 1 to 255 characters\.$")


@pytest.mark.parametrize(
    "claims",
    [{"scope": "a read b"}, {"scp": "read"}, {"scp": ["a", "read"]}, {"scope": "a", "scp": ["read"]}],
    ids=str,
)
def test_scopes_as_issuers_write_them(claims: dict[str, Any]) -> None:
    """A text with spaces, or a list, under either name."""
    payload = json.dumps({"sub": "user-1", "exp": 10, **claims}).encode()
    assert "read" in read_claims(payload, issuer=None, audience=(), now=0.0).scopes


def test_the_first_rule_that_fits_counts() -> None:
    """A request that no rule fits needs no scope."""
    rules = [("GET /messages/*", "read"), ("* /messages/*", "write"), ("GET /report", "report")]
    check_scope(rules, {"read"}, "GET", "/messages/1/stream")
    check_scope(rules, {"write"}, "POST", "/messages/1/cancel")
    check_scope(rules, set(), "GET", "/conversations")
    for scopes, method, path in (
        ({"write"}, "GET", "/messages/1"),
        ({"read"}, "POST", "/messages/1/cancel"),
        ({"reports"}, "GET", "/report"),
    ):
        with pytest.raises(InsufficientScope, match=r"^The token needs the scope \w+ for this\.$"):
            check_scope(rules, scopes, method, path)
