"""Between threads: commands and datagrams, notices, and what media threads put into each other's memory.

Each queue has one writing and one reading thread, which its functions name. Nothing else is shared but the tables.
"""
