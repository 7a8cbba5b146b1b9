"""API keys and their secrets, which sign and verify tokens."""

from collections.abc import Mapping

from pydantic import SecretStr

Keys = Mapping[str, SecretStr]
"""API key -> secret, in a type that prints as stars."""


def hide(keys: Mapping[str, str]) -> Keys:
    """Wrap the secrets of `keys` (API key -> secret)."""
    return {key: SecretStr(secret) for key, secret in keys.items()}
