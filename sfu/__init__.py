"""The forwarding engine: transports, tables and kernels. Knows rows, SSRCs and layers; never SDP, tokens or HTTP."""

from sfu.compiler import kernel_cache

# numba asks for a cache place when a decorator runs, so this must precede the import of any kernel.
kernel_cache.install()
