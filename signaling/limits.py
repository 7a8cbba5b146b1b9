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
"""Capabilities of a client, which everybody is told; LiveKit has three."""
MAX_SID_CHARACTERS = 64
"""Characters of a track sid that a client chooses before the track exists; our sids are half as long."""
MAX_SUBSCRIPTION_CHOICES = 10_000
"""Explicit (un)subscriptions and settings that one participant may have set, unknown tracks included."""
MAX_DEPARTURES = 1_000
"""Departures that a room remembers for clients without a socket; who missed more has to reconnect in full."""
MAX_BAD_MESSAGES = 10
"""Malformed frames from one socket before it is closed."""
MAX_UPDATE_PARTICIPANTS = 200
"""Participants in one update message, so that one update stays far below the frame limit of clients."""
MAX_UPDATE_BYTES = 512 * 1024
"""Bytes of one update message with more than one participant."""
MAX_UPDATE_BYTES_PER_S, UPDATE_BURST_BYTES = 256 * 1024, 4 * 1024 * 1024
"""Updates about one participant, to each member: a mute is some KiB, with all the metadata there may be half a MiB."""
MAX_ROOM_UPDATE_BYTES_PER_S, ROOM_UPDATE_BURST_BYTES = 512 * 1024, 8 * 1024 * 1024
"""Updates about all participants of a room, to each member: 4 Mbit/s, after a burst in which a large room may join."""
MAX_TRACK_PERMISSIONS = 5_000
"""Entries in one subscription_permission message."""

# Entries of what is repeated in one request; `bounds.py` says which field has which.

MAX_REQUEST_ENTRIES = 20_000
"""All repeated fields of one request together, nested ones included."""
MAX_REQUEST_SIDS = 5_000
"""Tracks or participants that one request names: more than one room has tracks."""
MAX_LAYERS = 16
"""Layers of one codec of one track; three are used."""
MAX_TRACK_CODECS = 8
"""Codecs of one track; two are used."""
MAX_FEATURES = 32
"""Audio features of one track; LiveKit has seven."""
MAX_DATA_CHANNELS = 16
"""In one sync_state; LiveKit has four."""
MAX_REGIONS = 100
"""In a client's leave, where nothing is made of them."""
MAX_ATTRIBUTES = 16_000
"""Keys in one request; together they have at most 64 KiB."""
MAX_JOIN_TRACKS = 32
"""Tracks that one join request may announce; more go out as requests afterwards."""
MAX_ECHO_BYTES = 64 * 1024
"""A refused request that is longer is not repeated in the refusal."""
MAX_TOLD_ERRORS = 100
"""Errors that answer one subscription request, for tracks that do not exist or are not allowed."""
MAX_JSON_ENTRIES = 5_000
"""Entries of all lists and objects of one JSON message, which cost a hundred times what protobuf's do."""
MAX_JSON_CHARACTERS = 256 * 1024
"""One JSON message without SDP and metadata: a request with `MAX_JSON_ENTRIES` sids has half of that."""
