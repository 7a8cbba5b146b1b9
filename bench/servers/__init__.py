"""The processes that targets start, and the names of compiled code in them for profilers."""
