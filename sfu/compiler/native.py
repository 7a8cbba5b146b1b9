"""Functions of libc, libsrtp and OpenSSL that kernels call, under our own symbol names.

`ExternalFunction` and not ctypes pointers, because kernels that hold a pointer cannot be cached on disk. libsrtp and
HMAC come from the pylibsrtp wheel, opened locally: loaded globally it would hand its OpenSSL to the whole process
and break `ssl`. If a wheel ever hides its symbols, the system's libsrtp2 and libcrypto take their place.
"""

import ctypes
import ctypes.util
from collections.abc import Iterable
from typing import Any

import llvmlite.binding as llvm
import pylibsrtp._binding
from numba import types

_SRTP_NAMES = ("srtp_protect", "srtp_unprotect", "srtp_protect_rtcp", "srtp_unprotect_rtcp", "srtp_remove_stream")
_CRYPTO_NAMES = ("HMAC", "EVP_sha1", "EVP_CipherInit_ex", "EVP_Cipher", "EVP_CIPHER_CTX_ctrl")


def _find(name: str, system_library: str) -> Any:
    function = getattr(ctypes.CDLL(pylibsrtp._binding.__file__), name, None)
    if function is None:
        path = ctypes.util.find_library(system_library)
        if path is None:
            raise ImportError(f"neither the pylibsrtp wheel nor lib{system_library} offers {name}")
        function = getattr(ctypes.CDLL(path), name)
    return function


def _register(names: Iterable[str], system_library: str) -> None:
    for name in names:
        function = _find(name, system_library)
        llvm.add_symbol(f"aiosfu_{name}", ctypes.cast(function, ctypes.c_void_p).value)


def crypto_function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the OpenSSL that kernels use, for Python; result, arguments: ctypes' types.

    Raises:
        ImportError: OpenSSL or the function was not found.
    """
    function = _find(name, "crypto")
    function.restype, function.argtypes = result, arguments
    return function


_register(_SRTP_NAMES, "srtp2")
_register(_CRYPTO_NAMES, "crypto")

_u64, _i64, _i32, _u32 = types.uint64, types.int64, types.int32, types.uint32

srtp_protect = types.ExternalFunction("aiosfu_srtp_protect", _i32(_u64, _u64, _u64))
"""(srtp_t, packet address, address of an i4 length) -> srtp_err_status_t; in place, the length grows."""
srtp_unprotect = types.ExternalFunction("aiosfu_srtp_unprotect", _i32(_u64, _u64, _u64))
srtp_protect_rtcp = types.ExternalFunction("aiosfu_srtp_protect_rtcp", _i32(_u64, _u64, _u64))
srtp_unprotect_rtcp = types.ExternalFunction("aiosfu_srtp_unprotect_rtcp", _i32(_u64, _u64, _u64))
srtp_remove_stream = types.ExternalFunction("aiosfu_srtp_remove_stream", _i32(_u64, _u32))
"""(srtp_t, SSRC in network byte order)."""
hmac = types.ExternalFunction("aiosfu_HMAC", _u64(_u64, _u64, _i32, _u64, _u64, _u64, _u64))
"""(EVP_MD, key address, key bytes, data address, data bytes, digest address, address of a u4 length or 0)."""
evp_sha1 = types.ExternalFunction("aiosfu_EVP_sha1", _u64())
evp_initialise = types.ExternalFunction("aiosfu_EVP_CipherInit_ex", _i32(_u64, _u64, _u64, _u64, _u64, _i32))
"""(context, EVP_CIPHER or 0, engine or 0, key address or 0, IV address, direction, -1 as before) -> 1 or an error."""
evp_cipher = types.ExternalFunction("aiosfu_EVP_Cipher", _i32(_u64, _u64, _u64, _u32))
"""(context, output address, input address, bytes) -> bytes written, or -1. Without output: data to authenticate only;
without input: the end."""
evp_control = types.ExternalFunction("aiosfu_EVP_CIPHER_CTX_ctrl", _i32(_u64, _i32, _i32, _u64))
"""(context, what, bytes, address) -> 1 or an error."""

recvmmsg = types.ExternalFunction("recvmmsg", _i32(_i32, _u64, _u32, _i32, _u64))
sendmmsg = types.ExternalFunction("sendmmsg", _i32(_i32, _u64, _u32, _i32))
memcpy = types.ExternalFunction("memcpy", _u64(_u64, _u64, _u64))
ppoll = types.ExternalFunction("ppoll", _i32(_u64, _u64, _u64, _u64))
read = types.ExternalFunction("read", _i64(_i32, _u64, _u64))
write = types.ExternalFunction("write", _i64(_i32, _u64, _u64))
epoll_ctl = types.ExternalFunction("epoll_ctl", _i32(_i32, _i32, _i32, _u64))
epoll_wait = types.ExternalFunction("epoll_wait", _i32(_i32, _u64, _i32, _i32))
recv = types.ExternalFunction("recv", _i64(_i32, _u64, _u64, _i32))
shutdown = types.ExternalFunction("shutdown", _i32(_i32, _i32))
madvise = types.ExternalFunction("madvise", _i32(_u64, _u64, _i32))
clock_gettime = types.ExternalFunction("clock_gettime", _i32(_i32, _u64))
errno_location = types.ExternalFunction("__errno_location", _u64())
