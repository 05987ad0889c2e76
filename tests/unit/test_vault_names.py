"""Which names a vault's variables may have."""

import pytest

from sidecar.errors import InvalidRequestError
from sidecar.http.queries import parse
from sidecar.wire.vaults import CredentialCreate


def credential(name: str) -> dict[str, object]:
    auth = {"type": "environment_variable", "secret_name": name, "secret_value": "v"}
    return {"auth": auth}


def test_a_key_of_opencodes_own_gateway_is_a_variable_like_others() -> None:
    """People have `OPENCODE_API_KEY`, and it steers nothing in a shell."""
    parse(CredentialCreate, credential("OPENCODE_API_KEY"))


@pytest.mark.parametrize("name", ["OPENCODE_CONFIG", "OPENCODE_API_KEY_FILE", "LD_PRELOAD", "PATH"])
def test_names_that_steer_programs_are_refused(name: str) -> None:
    """The exception is that one name."""
    with pytest.raises(InvalidRequestError, match="reserved"):
        parse(CredentialCreate, credential(name))
