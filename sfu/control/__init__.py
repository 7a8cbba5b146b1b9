"""The control thread, on asyncio: transports, receivers, subscriptions, and their rows in the tables.

It writes the control columns, sends commands to the media threads, and reads their notices and numbers.
"""
