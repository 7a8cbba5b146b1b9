"""Errors of the engine.

* `EngineError`: signalling asked for something that it must not (its fault)
    * `TableFull`: no row or packet cache is left, or too many commands wait (ours: a limit of this process)
* `TransportFailure`: the peer or the network ended a transport; never leaves `sfu`, it becomes a `TransportFailed`
"""


class EngineError(Exception):
    """A call that signalling must not make: an unknown id, a changed fingerprint, a bad value."""


class TableFull(EngineError):
    """A table of this process has no free row, or too much waits for the media thread. The text says which."""


class TransportFailure(Exception):
    """A transport is of no more use; the text is the reason of `events.TransportFailed`."""
