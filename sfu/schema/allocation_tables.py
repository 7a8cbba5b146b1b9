"""What the allocation of bandwidth works on: the video subscriptions of one transport."""

from sfu.schema.bandwidth_codes import Rung
from sfu.schema.columns import MEDIA, Column, RowType

COST_SPATIAL, COST_TEMPORAL = 3, 4
"""Layers whose costs are told apart; what is above counts with the highest of them."""
MEASURED_LAYERS = COST_SPATIAL * COST_TEMPORAL
LADDER = 2 + MEASURED_LAYERS
"""Paused, key frames only, and each layer."""
TARGET_STREAMS = 4
"""RTP streams that one allocation of video layers can name."""
MAX_SHARED = 128
"""Video subscriptions of one transport that share its bandwidth; further ones are given the lowest rung."""

DEMAND = RowType(
    "demand",
    "One video subscription while the bandwidth of its transport is shared out.",
    (
        Column("subscription", "i4", MEDIA, "Row of the subscription."),
        Column("screen", "u1", MEDIA, "Whether the video is a shared screen."),
        Column("priority", "i4", MEDIA, "The subscriber's priority for the track: 1 is the highest, 0 means none."),
        Column("pixels", "i8", MEDIA, "Width times height at which the client shows the video; 0: unknown."),
        Column("preferred_spatial", "i4", MEDIA, "Highest spatial layer that the subscriber prefers."),
        Column("preferred_temporal", "i4", MEDIA, "Highest temporal layer that the subscriber prefers."),
        Column(
            "cost",
            "i8",
            MEDIA,
            "Bit/s of everything that is sent up to a spatial and a temporal layer; 0: there is no such layer.",
            shape=(COST_SPATIAL, COST_TEMPORAL),
        ),
        Column("key_cost", "i8", MEDIA, "Bit/s of the key frames alone."),
        # what was allocated last, and then what is allocated now
        Column("rung", "i4", MEDIA, "The `Rung` that is allocated.", initial=int(Rung.NONE)),
        Column("spatial", "i4", MEDIA, "Highest spatial layer that may be sent."),
        Column("temporal", "i4", MEDIA, "Highest temporal layer that may be sent."),
        Column("reason", "i4", MEDIA, "The `Reason` why no higher rung is allocated."),
        # what upgrades and overdrafts led to before
        Column("raised_ns", "i8", MEDIA, "When the subscription was last given a higher rung than before; 0: never."),
        Column("raised_bps", "i8", MEDIA, "What the path was believed to carry at `raised_ns`."),
        Column(
            "failed_ns", "i8", MEDIA, "When a higher rung last had to be taken back soon after it was given; 0: never."
        ),
        Column("failed_bps", "i8", MEDIA, "What the path was believed to carry when the rung that failed was given."),
        Column("failures", "i4", MEDIA, "Upgrades in a row that had to be taken back soon."),
        Column("overdrawn_ns", "i8", MEDIA, "For a screen, when it last began to exceed the budget; 0: never."),
        # working space
        Column("order", "i4", MEDIA, "Rows of `demands` by importance: entry k is the row with k more important ones."),
        Column("rungs", "i4", MEDIA, "How many of `ladder_cost` are valid; 0: no layer is live."),
        Column("measured", "i8", MEDIA, "Bit/s of each layer alone.", shape=(COST_SPATIAL, COST_TEMPORAL)),
        Column(
            "target",
            "i8",
            MEDIA,
            "Bit/s that the publisher means to send up to each layer; 0: unknown.",
            shape=(COST_SPATIAL, COST_TEMPORAL),
        ),
        Column("ladder_cost", "i8", MEDIA, "Bit/s of each rung, rising.", shape=LADDER),
        Column("ladder_place", "i4", MEDIA, "What each rung is: `Rung`, or a layer's number above.", shape=LADDER),
        Column("at", "i4", MEDIA, "Index in `ladder_cost` of the rung reached."),
        Column("ended", "u1", MEDIA, "Whether the next rung did not fit."),
    ),
)
demand_t = DEMAND.dtype
