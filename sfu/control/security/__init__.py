"""DTLS handshakes, this process's certificate, and the keys that follow from them. Control thread.

Some of a handshake runs in threads of its own, for the memory that they allocate: see `sfu.control.security.dtls`.
"""
