"""HTTP and WebSocket: sockets, requests, tokens, and one client's stream of messages with its bounds. Control thread.

It reads what a client sends; rooms decide what that means.
"""
