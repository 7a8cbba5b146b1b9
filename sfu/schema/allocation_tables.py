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
        Column("subscription", "i4", MEDIA, "Its row."),
        Column("screen", "u1", MEDIA, "It is a shared screen."),
        Column("priority", "i4", MEDIA, "The client's: 1 is the highest; 0: none."),
        Column("pixels", "i8", MEDIA, "Width times height of what the client shows; 0: not known."),
        Column("wish_spatial", "i4", MEDIA, "Highest spatial layer that the client wishes."),
        Column("wish_temporal", "i4", MEDIA, "Highest temporal layer that the client wishes."),
        Column(
            "cost",
            "i8",
            MEDIA,
            "Bit/s of everything that is sent up to a spatial and a temporal layer; 0: there is no such layer.",
            shape=(COST_SPATIAL, COST_TEMPORAL),
        ),
        Column("key_cost", "i8", MEDIA, "Bit/s of key frames only."),
        # what was allocated last, and then what is allocated now
        Column("rung", "i4", MEDIA, "`Rung`.", initial=int(Rung.NONE)),
        Column("spatial", "i4", MEDIA, "Highest spatial layer that may be sent."),
        Column("temporal", "i4", MEDIA, "Highest temporal layer that may be sent."),
        Column("reason", "i4", MEDIA, "`Reason`."),
        # what upgrades and overdrafts led to before
        Column("raised_ns", "i8", MEDIA, "When it was last given more than before; 0: never."),
        Column("raised_bps", "i8", MEDIA, "What its path was believed to carry then."),
        Column("failed_ns", "i8", MEDIA, "When it last had to give that back soon afterwards; 0: never."),
        Column("failed_bps", "i8", MEDIA, "What its path had been believed to carry when that was given."),
        Column("failures", "i4", MEDIA, "How often in a row that happened."),
        Column("overdrawn_ns", "i8", MEDIA, "A screen: when it last began to exceed the budget; 0: never."),
        # working space
        Column("order", "i4", MEDIA, "Of the row that many places behind the most important one: its number."),
        Column("rungs", "i4", MEDIA, "How many of `ladder_cost` are valid; 0: no layer is live."),
        Column("measured", "i8", MEDIA, "Bit/s of each layer alone.", shape=(COST_SPATIAL, COST_TEMPORAL)),
        Column(
            "target",
            "i8",
            MEDIA,
            "Bit/s of what its publisher means to send up to each layer; 0: unknown.",
            shape=(COST_SPATIAL, COST_TEMPORAL),
        ),
        Column("ladder_cost", "i8", MEDIA, "Bit/s of each rung, rising.", shape=LADDER),
        Column("ladder_place", "i4", MEDIA, "What each rung is: `Rung`, or a layer's number above.", shape=LADDER),
        Column("at", "i4", MEDIA, "Rung reached."),
        Column("ended", "u1", MEDIA, "Its next rung did not fit."),
    ),
)
demand_t = DEMAND.dtype
