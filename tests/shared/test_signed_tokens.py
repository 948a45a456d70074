"""A token is valid if its issuer signed it for this service, for now, with a known key. Any other token is not valid."""

import base64
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from shared.errors import Unauthorized
from shared.identity.access import SCOPES
from shared.identity.credential_cache import CredentialCache
from shared.identity.signed_tokens import LEEWAY_SECONDS, LIFETIME_MAX_SECONDS
from shared.setting_values import read_public_keys
from shared.settings import Settings
from tests.harness.log import MASTER_KEY
from tests.harness.tokens import AUDIENCE, ISSUER, PRIVATE, PUBLIC, claims, jwk, key_set, signed, signed_tokens

IDENTIFIED: Any = {"alg": "EdDSA", "kid": "of-EdDSA"}
STRANGER = ed25519.Ed25519PrivateKey.generate()


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forged(header: dict[str, Any], secret: bytes | None = None) -> str:
    """A token that anybody can make: its signing secret is the public key."""
    content = f"{part({'typ': 'JWT', **header})}.{part(claims())}"
    signature = b"\0" * 64 if secret is None else hmac.digest(secret, content.encode(), "sha256")
    return f"{content}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def by_hand(header: dict[str, Any]) -> str:
    """A correctly signed token with a header that no library writes."""
    return written(claims(), header)


def written(content: Any, header: Any = IDENTIFIED) -> str:
    """A correctly signed token with a header or claims that no library writes."""
    signed_part = f"{part(header)}.{part(content)}"
    signature: bytes = PRIVATE["EdDSA"].sign(signed_part.encode())
    return f"{signed_part}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def pem_of(algorithm: str) -> bytes:
    public: bytes = (
        PRIVATE[algorithm].public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return public


def refused() -> dict[str, str]:
    now = int(time.time())
    return {
        "another issuer": signed(iss="https://elsewhere.example"),
        "no issuer": signed(iss=None),
        "another audience": signed(aud="elsewhere"),
        "no audience": signed(aud=None),
        "expired": signed(iat=now - 600, exp=now - LEEWAY_SECONDS - 5),
        "without an end": signed(exp=None),
        "made for too long": signed(exp=now + LIFETIME_MAX_SECONDS + 60),
        "said to be made in the future": signed(iat=now + LEEWAY_SECONDS + 60),
        "without a beginning": signed(iat=None),
        "not yet valid": signed(nbf=now + LEEWAY_SECONDS + 60),
        "times that are no numbers": signed(exp="tomorrow"),
        "an end that is text": signed(exp=str(now + 60)),
        "a beginning that is text": signed(iat=str(now)),
        "a first moment that is text": signed(nbf=str(now)),
        "a beginning that is true": signed(iat=True),
        "an end without end": written(claims() | {"exp": float("inf")}),
        "an end that is not a number": written(claims() | {"exp": float("nan")}),
        "claims that are no object": written([claims()]),
        "an issuer that is an object": written(claims() | {"iss": {}}),
        "no subject": signed(sub=None),
        "an empty subject": signed(sub=""),
        "a subject with a line break": signed(sub="a\nb"),
        "a ledger that is none": signed(ledger="Main!"),
        "scopes that are no text": signed(scope=["ledger:read"]),
        "an unknown key": signed(headers={"kid": "of-nobody"}),
        "no key id": jwt.encode(claims(), PRIVATE["EdDSA"], "EdDSA"),
        "a key id that is no text": by_hand({"alg": "EdDSA", "kid": 1}),
        "another one's signature": jwt.encode(claims(), STRANGER, "EdDSA", {"kid": "of-EdDSA"}),
        "the key of another algorithm": signed("ES256", headers={"kid": "of-RS256"}),
        "what we do not understand and must": signed(headers={"crit": ["exp"]}),
        "no signature": forged({"alg": "none", "kid": "of-EdDSA"}),
        "a public key as the secret": forged({"alg": "HS256", "kid": "of-RS256"}, pem_of("RS256")),
        "a key of its own": jwt.encode(
            claims(),
            STRANGER,
            "EdDSA",
            {"kid": "of-EdDSA", "jwk": jwk("EdDSA", STRANGER.public_key()), "jku": "https://evil.example"},
        ),
        "a changed claim": signed().replace(part(claims()).partition(".")[0][:8], "eyJpc3Mh"),
        "only two parts": signed().rpartition(".")[0],
        "rubbish": "eyJ.eyJ.eyJ",
    }


@pytest.mark.parametrize("wrong", refused())
async def test_a_token_with_any_fault_is_not_valid(wrong: str) -> None:
    callers, headers = CredentialCache(signed_tokens()), [f"Bearer {refused()[wrong]}"]
    with pytest.raises(Unauthorized):
        await callers.principal(headers)
    assert not callers.has_verified(headers)


@pytest.mark.parametrize("algorithm", PRIVATE)
async def test_a_token_belongs_to_a_service_with_the_scopes_that_it_names(algorithm: str) -> None:
    principal = await CredentialCache(signed_tokens()).principal(
        [f"Bearer {signed(algorithm, scope='ledger:read email openid')}"]
    )
    assert (principal.principal, principal.key_id, principal.ledger_id) == ("jwt:billing", f"of-{algorithm}", "main")
    assert principal.user_id is None
    assert principal.scopes == {"ledger:read"}


async def test_a_token_made_by_hand_is_valid_if_it_has_no_fault() -> None:
    assert await signed_tokens().verify(by_hand(IDENTIFIED))


async def test_a_token_is_valid_within_the_leeway_of_its_times_and_for_its_ledger() -> None:
    callers, now = CredentialCache(signed_tokens()), int(time.time())
    late = signed(iat=now - 300, exp=now - 5, nbf=now - 300, ledger="eu")
    early = signed(iat=now + 5, nbf=now + 5, aud=[AUDIENCE, "others"])
    assert (await callers.principal([f"Bearer {late}"])).ledger_id == "eu"
    assert (await callers.principal([f"Bearer {early}"])).scopes == set(SCOPES) - {"credentials:write"}


async def test_a_token_is_not_remembered_beyond_its_end() -> None:
    now = int(time.time())
    found = await signed_tokens().verify(signed(iat=now - 60, exp=now + 3 - LEEWAY_SECONDS))
    assert found.seconds <= 3


async def test_a_token_of_100_kb_is_not_decoded() -> None:
    with pytest.raises(Unauthorized):
        await CredentialCache(signed_tokens()).principal([f"Bearer {signed(rubbish='x' * 100_000)}"])


SMALL = rsa.generate_private_key(65537, 1024)  # to be refused
BAD_SETS = {
    "/nowhere/keys.json": "or the path of a file",
    '{"keys": []}': "must have at least one key",
    '{"keys": 1}': "JWK set",
    "{": "JWK set",
    key_set(PUBLIC[0], PUBLIC[0]): "key 2 has no kid, or the same kid as an earlier key",
    key_set({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}): "key 1 is not a signature key",
    key_set({**PUBLIC[0], "alg": "HS256"}): "key 1 is not a signature key",
    key_set({**PUBLIC[0], "use": "enc"}): "key 1 is not a signature key",
    key_set(jwk("EdDSA", PRIVATE["EdDSA"])): "key 1 is a private key",
    key_set({**PUBLIC[0], "x": "AA"}): "key 1 cannot be read",
    key_set(jwk("RS256", SMALL.public_key())): "key 1 has fewer than 2048 bits",
}


@pytest.mark.parametrize("wrong", BAD_SETS)
def test_a_key_set_with_one_unusable_key_is_rejected_as_a_whole(wrong: str) -> None:
    with pytest.raises(ValueError, match=BAD_SETS[wrong]):
        read_public_keys(wrong)


def test_the_keys_can_be_in_a_file_and_need_an_issuer_and_an_audience(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(key_set())
    stores: dict[str, Any] = {"database_url": "", "mongo_url": "", "redis_url": "", "secret": "x" * 32, "master_keys": MASTER_KEY}
    settings = Settings(**stores, jwt_keys=str(file), jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    assert len(read_public_keys(settings.jwt_keys)) == 3
    with pytest.raises(ValueError, match="DAYBOOK_JWT_AUDIENCE"):
        Settings(**stores, jwt_keys=str(file), jwt_issuer=ISSUER)
