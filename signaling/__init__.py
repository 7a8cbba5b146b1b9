"""Signalling: HTTP, WebSocket, tokens, rooms, permissions and SDP, all on asyncio.

Knows names and never sees a packet; talks to the media engine through `sfu.engine` alone.
"""
