"""HTTP and WebSocket: sockets, requests, tokens, and one client's stream of messages with its bounds. Control thread.

Knows what a client says, not what it means: rooms give the meaning.
"""
