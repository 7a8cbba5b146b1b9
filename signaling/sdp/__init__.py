"""Session descriptions and what follows from them: parsing, codecs, negotiation, the two peer connections.

Calls the media engine for one client's transports; knows no rooms and no sockets. Control thread.
"""
