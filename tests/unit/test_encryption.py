"""Secrets at rest: what opens, what does not, and what a wrong key does at the start."""

from __future__ import annotations

import base64
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import SettingsError
from sidecar.managed.vaults.credentials import Credentials
from sidecar.managed.vaults.encryption import (
    KEY_FILE,
    DecryptionError,
    SecretBox,
    open_secret_box,
    parse_key,
)
from sidecar.managed.vaults.vaults import Vaults
from sidecar.store.sqlite import SqliteStore
from sidecar.wire.vaults import CredentialCreate, VaultCreate

KEY = bytes(range(32))
OTHER_KEY = base64.b64encode(b"x" * 32).decode()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An empty store."""
    database = SqliteStore(tmp_path / "sidecar.db")
    await database.open()
    yield database
    await database.close()


async def store_credential(database: SqliteStore, secret_box: SecretBox) -> str:
    """Store one credential; return its vault's id."""
    vault = await Vaults(database=database, secret_box=secret_box).create(
        VaultCreate(display_name="v")
    )
    auth = {"type": "static_bearer", "mcp_server_url": "https://mcp.example/", "token": "t0p"}
    credential = CredentialCreate.model_validate({"auth": auth})
    await Credentials(database=database, secret_box=secret_box).create(vault.id, credential)
    return vault.id


@given(st.text(), st.text(alphabet="abcdef_0123", min_size=1))
def test_a_ciphertext_is_decrypted_for_its_owner_only(text: str, owner: str) -> None:
    """A ciphertext is decrypted for the id it was bound to and for no other."""
    secret_box = SecretBox(KEY)
    encrypted = secret_box.encrypt(text, bound_to=owner)
    assert secret_box.decrypt(encrypted, bound_to=owner) == text
    with pytest.raises(DecryptionError):
        secret_box.decrypt(encrypted, bound_to=owner + "x")


def test_encrypting_twice_gives_different_bytes() -> None:
    """Equal secrets cannot be recognised in the store."""
    secret_box = SecretBox(KEY)
    assert secret_box.encrypt("same", bound_to="a") != secret_box.encrypt("same", bound_to="a")


def test_every_changed_byte_is_noticed() -> None:
    """A ciphertext with any byte changed, or cut short anywhere, is refused."""
    secret_box = SecretBox(KEY)
    encrypted = secret_box.encrypt("secret", bound_to="a")
    for position in range(len(encrypted)):
        changed = bytearray(encrypted)
        changed[position] ^= 1
        with pytest.raises(DecryptionError):
            secret_box.decrypt(bytes(changed), bound_to="a")
        with pytest.raises(DecryptionError):
            secret_box.decrypt(encrypted[:position], bound_to="a")


@pytest.mark.parametrize("text", ["", "not base64!", base64.b64encode(b"short").decode()])
def test_a_malformed_key_is_refused_without_being_shown(text: str) -> None:
    """The error names where the key came from and how to make one, never the key."""
    with pytest.raises(SettingsError) as caught:
        parse_key(text, source="SIDECAR_VAULT_KEY")
    assert "SIDECAR_VAULT_KEY" in caught.value.message
    assert "openssl rand -base64 32" in caught.value.message
    assert not text or text not in caught.value.message


async def test_a_key_is_made_once_and_only_its_owner_may_read_it(
    database: SqliteStore, tmp_path: Path
) -> None:
    """Without a key in the settings one is generated with mode 0600, and used again at the next start."""
    first = await open_secret_box(database=database, key=None, data_dir=tmp_path)
    file = tmp_path / KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = file.read_bytes()
    second = await open_secret_box(database=database, key=None, data_dir=tmp_path)
    assert file.read_bytes() == content
    assert second.decrypt(first.encrypt("s", bound_to="a"), bound_to="a") == "s"


async def test_the_settings_key_comes_first_and_leaves_no_file(
    database: SqliteStore, tmp_path: Path
) -> None:
    """With a key in the settings none is generated."""
    secret_box = await open_secret_box(database=database, key=OTHER_KEY, data_dir=tmp_path)
    assert SecretBox(b"x" * 32).decrypt(secret_box.encrypt("s", bound_to="a"), bound_to="a") == "s"
    assert not (tmp_path / KEY_FILE).exists()


async def test_a_wrong_key_refuses_to_start(database: SqliteStore, tmp_path: Path) -> None:
    """Stored secrets and another key: the start fails and says which setting to correct."""
    await store_credential(
        database, await open_secret_box(database=database, key=None, data_dir=tmp_path)
    )
    with pytest.raises(SettingsError, match="SIDECAR_VAULT_KEY is not the key"):
        await open_secret_box(database=database, key=OTHER_KEY, data_dir=tmp_path)


async def test_a_lost_key_file_refuses_to_start(database: SqliteStore, tmp_path: Path) -> None:
    """A missing key file is not replaced by a new one while secrets depend on it."""
    await store_credential(
        database, await open_secret_box(database=database, key=None, data_dir=tmp_path)
    )
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(SettingsError, match="is missing"):
        await open_secret_box(database=database, key=None, data_dir=tmp_path)
    assert not (tmp_path / KEY_FILE).exists()


async def test_the_key_may_change_while_nothing_is_stored(
    database: SqliteStore, tmp_path: Path
) -> None:
    """Before the first secret another key is simply taken."""
    await open_secret_box(database=database, key=None, data_dir=tmp_path)
    secret_box = await open_secret_box(database=database, key=OTHER_KEY, data_dir=tmp_path)
    vault_id = await store_credential(database, secret_box)
    again = await open_secret_box(database=database, key=OTHER_KEY, data_dir=tmp_path)
    secrets = await Vaults(database=database, secret_box=again).secrets_for([vault_id])
    assert secrets.bearer_by_url == {"https://mcp.example/": "t0p"}


async def test_secrets_do_not_show_when_printed(database: SqliteStore, tmp_path: Path) -> None:
    """The repr of a session's secrets has names and URLs, no values."""
    secret_box = await open_secret_box(database=database, key=None, data_dir=tmp_path)
    vault_id = await store_credential(database, secret_box)
    secrets = await Vaults(database=database, secret_box=secret_box).secrets_for([vault_id])
    assert "t0p" not in repr(secrets)
    assert "https://mcp.example/" in repr(secrets)
