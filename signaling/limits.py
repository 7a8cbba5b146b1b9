"""Every bound on what clients can make rooms hold, in one place, with the reason for each number.

The bounds on what a join brings (names, metadata, attributes) are in `join.py`, those on one socket in `connection.py`.
Numbers that an operator may want to change are in the configuration; these protect the process and the wire.
"""

MAX_TRACKS = 100
"""Published tracks of one participant: ten times what a person uses, enough for a gateway."""
MAX_PENDING_TRACKS = 32
"""Announced with add_track and not yet seen in an offer."""
MAX_ADD_TRACK_BYTES = 16 * 1024
"""One add_track request: it is kept and told to everybody. Browsers' requests are below 500 bytes."""
MAX_CAPABILITIES = 32
"""Of a client, told to everybody."""
MAX_SID_CHARACTERS = 64
"""Of a track that a client chooses before it exists; ours are half as long."""
MAX_SUBSCRIPTION_CHOICES = 10_000
"""Explicit (un)subscriptions and settings that one participant may have set, unknown tracks included."""
MAX_DEPARTURES = 1_000
"""Departures that a room remembers for clients without a socket; who missed more has to reconnect in full."""
MAX_BAD_MESSAGES = 10
"""Malformed frames from one socket before it is closed."""
MAX_UPDATE_PARTICIPANTS = 200
"""Participants in one update message, so that one update stays far below the frame limit of clients."""
MAX_TRACK_PERMISSIONS = 5_000
"""Entries in one subscription_permission message."""
