"""The media threads: the compiled loop, what it does in a turn, and in subfolders the stages of a packet's way.

Everything here is kernels, runs in a media thread and may write that thread's columns of the tables only.
"""
