"""The control thread, on asyncio: transports, tracks, subscriptions, and their rows in the tables.

It writes the control columns, sends commands to the media threads, and reads their notices and numbers.
"""
