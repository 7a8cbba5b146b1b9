"""What is beneath every kernel: functions of C libraries, atomic loads and stores, the cache of machine code.

No thread of its own: its functions run in the thread that calls them. Compiling ahead is `sfu.compile`.
"""
