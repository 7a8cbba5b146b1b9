"""Errors of the engine.

* `EngineError`: signalling asked for something that it must not (its fault)
    * `TableFull`: no row, ring or ufrag is left (ours: a limit of this process)
* `TransportFailure`: the peer or the network ended a transport; never leaves `sfu`, it becomes a `TransportFailed`
"""


class EngineError(Exception):
    """A call that signalling must not make: an unknown id, a changed fingerprint, a bad value."""


class TableFull(EngineError):
    """A table of `sfu.tables` has no free row. The text names it."""


class TransportFailure(Exception):
    """A transport is of no more use; the text is the reason of `events.TransportFailed`."""
