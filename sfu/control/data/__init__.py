"""Data channels: SCTP over DTLS, and messages that wait for slow receivers. Control thread."""
