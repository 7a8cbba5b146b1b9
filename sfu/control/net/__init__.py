"""The sockets of the engine: UDP for media threads, and TCP connections until a media thread has them.

Control thread.
"""
