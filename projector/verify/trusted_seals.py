"""The seals that the checks compare with: which keys are trusted, and where the published seals are."""

from pathlib import Path
from typing import NamedTuple

from shared.proof.seals import KnownKeys, Seal, known_keys
from shared.settings import Settings


class TrustedSeals(NamedTuple):
    """The trusted public keys, and the file of published seals. If there are no keys, signatures are not checked.

    `is_own` is True if the file is the one that the worker publishes in: it must then hold every seal. A file that somebody has
    kept elsewhere may hold only some, but at least one.
    """

    keys: KnownKeys
    file: Path | None
    is_own: bool


class FoundSeal(NamedTuple):
    """A seal, and the place where it was found, which messages name."""

    where: str
    seal: Seal


def trusted_seals(settings: Settings, file: Path | None) -> TrustedSeals:
    """Returns the keys from the settings, with `file`. If `file` is None, takes the file from the settings too."""
    seed = settings.seal_key.get_secret_value() if settings.seal_key else None
    configured = Path(settings.seal_file) if settings.seal_file else None
    keys = known_keys(seed, [text for text in settings.seal_public_keys.split(",") if text])
    return TrustedSeals(keys, file or configured, is_own=file is None)
