"""Session descriptions and what follows from them: parsing, codecs, negotiation, the two peer connections.

It calls the media engine for one client's transports, and knows no rooms and no sockets. It runs in the control thread.
"""
