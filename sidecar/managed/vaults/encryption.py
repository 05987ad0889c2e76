"""Secrets at rest: AES-256-GCM, each ciphertext bound to the id of the row that it belongs to.

A value that is copied to another row cannot be decrypted there. The key comes from the settings, or is
made once beside the database. An encrypted constant in the store reveals a wrong key at the start, before
a secret is missing or another one is written with a second key.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from pathlib import Path

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecar.atomic_file import replace_file
from sidecar.config.engine import KEY_FILE
from sidecar.errors import SettingsError, SidecarError
from sidecar.store.interface import Connection, Store

KEY_BYTES = 32
KEY_VARIABLE = "SIDECAR_VAULT_KEY"

_NONCE_BYTES = 12
_FORMAT = b"\x01"
"""First byte of an encrypted value, authenticated too: AES-256-GCM, 12 bytes of nonce, ciphertext and tag."""
_CHECK_ID = "key-check"
_CHECK_TEXT = "opencode-sidecar"
_HOLDERS = ("credentials", "session_resources")
"""Tables with an encrypted `secret` column."""

_log = structlog.get_logger(__name__)


class DecryptionError(SidecarError):
    """A stored secret cannot be decrypted: another key, another row, or damage."""


class SecretBox:
    """Encrypts and decrypts with one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def encrypt(self, text: str, *, bound_to: str) -> bytes:
        """Return the ciphertext; it decrypts only with the same `bound_to`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        encrypted = self._cipher.encrypt(nonce, text.encode(), _FORMAT + bound_to.encode())
        return _FORMAT + nonce + encrypted

    def decrypt(self, encrypted: bytes, *, bound_to: str) -> str:
        """Return the plain text. Raises DecryptionError."""
        nonce, body = encrypted[1 : 1 + _NONCE_BYTES], encrypted[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, body, encrypted[:1] + bound_to.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise DecryptionError(
                f"the stored secret of {bound_to} cannot be decrypted: it was encrypted with another key "
                "or is damaged; store the credential again"
            ) from error


def parse_key(text: str, *, source: str) -> bytes:
    """Return the 32 bytes of a base64 key. Raises SettingsError that names `source`, never the key."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingsError(f"{source}: not base64; make a key with {_RECIPE}") from error
    if len(key) != KEY_BYTES:
        raise SettingsError(f"{source}: must hold {KEY_BYTES} bytes; make a key with {_RECIPE}")
    return key


_RECIPE = "`openssl rand -base64 32`"


async def open_shared_secret_box(*, database: Store, key: str) -> SecretBox:
    """Return the secret box of a database that several pods share.

    The first pod decides the key, even before there are secrets: with a second key a pod would write what
    the others cannot read. Raises SettingsError for another key.
    """
    secret_box = SecretBox(parse_key(key, source=KEY_VARIABLE))
    encrypted = secret_box.encrypt(_CHECK_TEXT, bound_to=_CHECK_ID)

    def write(connection: Connection) -> bytes | None:
        connection.execute(
            "INSERT INTO key_check (sealed) VALUES (?) ON CONFLICT DO NOTHING", (encrypted,)
        )
        return _select_check(connection)

    check = await database.read(_select_check) or await database.write(write)
    if check is None or not _decrypts(secret_box, check):
        raise SettingsError(
            f"{KEY_VARIABLE} is not the key that {database.location} was set up with; all its pods "
            "need the same one (to begin anew: delete the row of the table key_check and all credentials)"
        )
    return secret_box


async def open_secret_box(*, database: Store, key: str | None, data_dir: Path) -> SecretBox:
    """Return the secret box of this data directory: with `key` (base64), else with the key file.

    The file is made on first use, readable by its owner only. Raises SettingsError when the key is not
    the one that the stored secrets were encrypted with, or its file is gone: they would be lost silently.
    """
    file = data_dir / KEY_FILE
    check = await database.read(_select_check)
    if key is not None:
        source, found = KEY_VARIABLE, parse_key(key, source=KEY_VARIABLE)
    elif file.exists():
        source, found = str(file), parse_key(_read(file), source=str(file))
    elif check is None or await _is_unused(database):
        source, found = str(file), _create(file)
        check = None
    else:
        raise SettingsError(
            f"{file} is missing, and {database.location} holds secrets encrypted with it: restore the file, "
            f"or set {KEY_VARIABLE} to its content"
        )
    secret_box = SecretBox(found)
    if check is not None and not _decrypts(secret_box, check):
        if not await _is_unused(database):
            raise SettingsError(
                f"{source} is not the key that the secrets in {database.location} were encrypted with; "
                f"set {KEY_VARIABLE} to the key used before"
            )
        check = None
    if check is None:
        encrypted = secret_box.encrypt(_CHECK_TEXT, bound_to=_CHECK_ID)
        await database.write(lambda connection: _replace_check(connection, encrypted))
    return secret_box


def _decrypts(secret_box: SecretBox, check: bytes) -> bool:
    try:
        return secret_box.decrypt(check, bound_to=_CHECK_ID) == _CHECK_TEXT
    except DecryptionError:
        return False


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from error


def _create(file: Path) -> bytes:
    """Make a key and put it into the file whole: a crash leaves either no file or a good one."""
    key = secrets.token_bytes(KEY_BYTES)
    try:
        replace_file(file, base64.b64encode(key) + b"\n", is_synced=True)
    except OSError as error:
        raise SettingsError(f"{file}: cannot be written: {error}") from error
    _log.info("vault key made", file=str(file))
    return key


def _select_check(connection: Connection) -> bytes | None:
    row = connection.execute("SELECT sealed FROM key_check").fetchone()
    return row["sealed"] if row is not None else None


def _replace_check(connection: Connection, encrypted: bytes) -> None:
    connection.execute("DELETE FROM key_check")
    connection.execute("INSERT INTO key_check (sealed) VALUES (?)", (encrypted,))


async def _is_unused(database: Store) -> bool:
    """Whether no secret is stored, so that another key loses nothing."""

    def count(connection: Connection) -> int:
        queries = [f"SELECT count(*) FROM {table} WHERE secret IS NOT NULL" for table in _HOLDERS]  # noqa: S608  # our own names
        return sum(connection.execute(query).fetchone()[0] for query in queries)

    return await database.read(count) == 0
