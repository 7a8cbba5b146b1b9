"""The bounds on what clients can make rooms hold, with the reason for each number.

The bounds on what a join brings (names, metadata, attributes) are in `join.py`, those on one socket in `connection.py`.
Numbers that an operator may want to change are in the configuration; these protect the process and the wire.
"""

MAX_TRACKS = 100
"""Published tracks of one participant: ten times what a person uses, enough for a gateway."""
MAX_PENDING_TRACKS = 32
"""Tracks of one participant that are announced with `add_track` and not offered yet."""
MAX_DATA_TRACKS, MAX_DATA_TRACKS_OF_A_ROOM = 50, 1_000
"""Data tracks of one participant, and of one room: each client is told all of those to which it subscribes at once.
More of a room are refused (`data_tracks`)."""
MAX_DATA_TRACK_BYTES = 1024
"""Bytes of the description of a data track, which everybody is told with each update about its publisher."""
MAX_DATA_BLOBS = 500
"""Data blobs of one participant: one for the schema of each data track, and many more. Small ones cost more memory than
the bytes that the operator bounds."""
MAX_ADD_TRACK_BYTES = 16 * 1024
"""Bytes of one `add_track` request, which is kept and told to everybody. Browsers send less than 500."""
MAX_CAPABILITIES = 32
"""Capabilities of a client, which everybody is told. LiveKit has three."""
MAX_SID_CHARACTERS = 64
"""Characters of a track sid that a client chooses before the track exists; our sids are half as long."""
MAX_SUBSCRIPTION_CHOICES = 10_000
"""Explicit (un)subscriptions and settings that one participant may have set, unknown tracks included."""
MAX_DEPARTURES = 1_000
"""Departures that a room remembers for clients that resume. A client that missed more must join again."""
MAX_BAD_MESSAGES = 10
"""Malformed frames from one socket before it is closed."""
MAX_UPDATE_PARTICIPANTS = 200
"""Participants in one update message, so that one update stays far below the frame limit of clients."""
MAX_UPDATE_BYTES = 512 * 1024
"""Bytes of one update message with more than one participant."""
MAX_UPDATE_BYTES_PER_S, UPDATE_BURST_BYTES = 256 * 1024, 4 * 1024 * 1024
"""Updates about one participant, to each member. A mute sends some KiB, or half a MiB with the largest metadata."""
MAX_ROOM_UPDATE_BYTES_PER_S, ROOM_UPDATE_BURST_BYTES = 512 * 1024, 8 * 1024 * 1024
"""Updates about all participants of a room, to each member: 4 Mbit/s, after a burst in which a large room may join."""
MAX_TRACK_PERMISSIONS = 5_000
"""Entries in one subscription_permission message."""

# Entries of what is repeated in one request; `bounds.py` says which field has which.

MAX_REQUEST_ENTRIES = 20_000
"""Entries of all repeated fields of one request together, nested ones included."""
MAX_REQUEST_SIDS = 5_000
"""Tracks or participants that one request names, which is more than a room has tracks."""
MAX_LAYERS = 16
"""Layers of one codec of one track; three are used."""
MAX_TRACK_CODECS = 8
"""Codecs of one track; two are used."""
MAX_FEATURES = 32
"""Audio features of one track; LiveKit has seven."""
MAX_DATA_CHANNELS = 16
"""Data channels in one `sync_state`. LiveKit has four."""
MAX_REGIONS = 100
"""Regions in a client's `leave`, which are not used."""
MAX_ATTRIBUTES = 16_000
"""Attributes in one request. Together they have at most 64 KiB."""
MAX_JOIN_TRACKS = 32
"""Tracks that one join request may announce. Further ones are announced by requests."""
MAX_DISPATCHES = 100
"""Agents that are dispatched to one room."""
MAX_ECHO_BYTES = 64 * 1024
"""Bytes above which a refused request is not repeated in the refusal."""
MAX_TOLD_ERRORS = 100
"""Errors that answer one subscription request, for tracks that do not exist or are not allowed."""
MAX_JSON_ENTRIES = 5_000
"""Entries of all lists and objects of one JSON message, which cost a hundred times what protobuf's do."""
MAX_JSON_CHARACTERS = 256 * 1024
"""Characters of one JSON message without SDP and metadata. A request with `MAX_JSON_ENTRIES` sids has half of that."""

# What the server API can make rooms hold; the API's own bounds are in `signaling/api/`.

MAX_MESSAGE_BYTES = 256 * 1024
"""Bytes of a data packet, which browsers take whole (`max-message-size` of their offers)."""
MAX_NONCES = 1_000
"""Nonces of data packets that a room remembers, so that a repeated packet is not sent twice."""
MAX_REVOCATIONS = 100_000
"""Identities of rooms whose older tokens are refused. The oldest are forgotten first (`revocations`)."""
MAX_REVOCATIONS_OF_A_ROOM = 10_000
"""Identities of one room whose older tokens are refused, so that one room's administrator cannot make the server forget
those of other rooms."""
MAX_RPC_CALLS = 4_000
"""Calls of the server to participants that wait for an answer. Further ones fail (`rpc_calls`)."""
MAX_RPC_CALLS_OF_A_ROOM = 1_000
"""Those to participants of one room, so that one room's application cannot take all of them."""
MAX_KEPT_BYTES = 64 * 1024 * 1024
"""Bytes of metadata and agents that all rooms keep together. More is refused (`room_bytes`)."""
MAX_KEPT_BYTES_OF_A_ROOM = 2 * 1024 * 1024
"""Bytes of metadata and agents that one room keeps: the largest metadata that an operator can allow, and as much again
for agents."""
SMALL_KEPT_BYTES = 4 * 1024
"""Bytes of each room that do not count for all together, so that a few large rooms keep no ordinary room out."""
