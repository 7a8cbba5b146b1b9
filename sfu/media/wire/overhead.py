"""What a packet has on the wire beside the RTP packet."""

from numba import njit

GCM_TAG_BYTES = 16
"""RFC 7714 section 12: both GCM profiles."""
SHA1_80_TAG_BYTES = 10
"""RFC 3711 section 5.2: AES128_CM_SHA1_80."""
UDP_IP4_BYTES, UDP_IP6_BYTES = 8 + 20, 8 + 40


@njit(cache=True)
def udp_ip_bytes(family):
    """Bytes of the headers of UDP and IP; family: 4 or 6."""
    return UDP_IP6_BYTES if family == 6 else UDP_IP4_BYTES
