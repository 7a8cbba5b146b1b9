"""Errors of the engine.

* `EngineError`: the caller made a mistake, and nothing has changed.
    * `TableFull`: the caller made none; a limit of this process is reached, of rows, packet caches or waiting commands.
* `TransportFailure`: the peer or the network ended a transport. It is raised inside `sfu` only; callers get the event
  `TransportFailed`.
"""


class EngineError(Exception):
    """A call that signalling must not make: an unknown id, a changed fingerprint, a bad value."""


class TableFull(EngineError):
    """A table of this process has no free row, or too much waits for the media thread. The text says which."""


class TransportFailure(Exception):
    """A transport is of no more use; the text is the reason of `events.TransportFailed`."""
