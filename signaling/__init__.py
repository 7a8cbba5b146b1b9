"""Signalling: HTTP, WebSocket, tokens, rooms, permissions and SDP, all on asyncio.

It knows names and never sees a packet. It uses the media engine through `sfu.engine` alone.
"""
