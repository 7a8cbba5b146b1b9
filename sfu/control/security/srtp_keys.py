"""Keys for the RTP that we send under AES-GCM, which `sfu/media/net/srtp.py` encrypts itself; libsrtp derives its own.

RFC 7714 section 11 and RFC 3711 section 4.3: session key and salt come from the master key and salt of DTLS.
"""

import ctypes
import weakref

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sfu.compiler.native import crypto_function

SALT_BYTES = 12
"""RFC 7714 section 12.1."""
KEY_LABEL, SALT_LABEL = 0, 2
"""RFC 3711 section 4.3.1: what is derived for RTP."""
BLOCK_BYTES = 16
ENCRYPT = 1

_address, _number, _bytes = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
_new = crypto_function("EVP_CIPHER_CTX_new", _address)
_free = crypto_function("EVP_CIPHER_CTX_free", None, _address)
_initialise = crypto_function("EVP_CipherInit_ex", _number, _address, _address, _address, _bytes, _bytes, _number)
_CIPHERS = {16: crypto_function("EVP_aes_128_gcm", _address), 32: crypto_function("EVP_aes_256_gcm", _address)}
"""Ciphers by the bytes of a key."""


def derive(master_key: bytes, master_salt: bytes) -> tuple[bytes, bytes]:
    """Session key (as long as the master key) and session salt (12 bytes) of RTP, key derivation rate 0."""
    return (
        _derive(master_key, master_salt, KEY_LABEL, len(master_key)),
        _derive(master_key, master_salt, SALT_LABEL, SALT_BYTES),
    )


def _derive(master_key: bytes, master_salt: bytes, label: int, size: int) -> bytes:
    """RFC 3711 section 4.3.3: the key stream of counter mode, from a block that holds label and salt. A salt of 96
    bits counts as one of 112 with zeros at its end, as libsrtp has it."""
    block = bytearray(master_salt.ljust(BLOCK_BYTES, b"\0"))
    block[7] ^= label
    stream = Cipher(algorithms.AES(master_key), modes.CTR(bytes(block))).encryptor()
    return stream.update(bytes(size))


class SendingCipher:
    """OpenSSL's context with the session key of one direction of a transport. Keep it alive as long as its address
    stands in a table; one thread at a time may use it."""

    def __init__(self, key: bytes, salt: bytes) -> None:
        """key: the session's, 16 or 32 bytes; salt: 12 bytes. Both from `derive`.

        Raises:
            MemoryError: OpenSSL cannot make the context.
        """
        self.salt = salt
        self.address: int = _new() or 0
        if not self.address:
            raise MemoryError("no cipher context")
        weakref.finalize(self, _free, self.address).atexit = False
        if _initialise(self.address, _CIPHERS[len(key)](), None, key, None, ENCRYPT) != 1:
            raise MemoryError("no cipher in the context")

    @property
    def salt_words(self) -> tuple[int, int]:
        """The salt as little-endian words of 8 and 4 bytes."""
        return int.from_bytes(self.salt[:8], "little"), int.from_bytes(self.salt[8:], "little")
