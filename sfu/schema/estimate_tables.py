"""What a transport's path is believed to carry: the send-side bandwidth estimate, by transport.

Rates are bits per second. Times of sending are ours, times of arrival are the receiver's clock as transport-cc tells
it: only differences of the latter mean anything.
"""

from sfu.schema.columns import MEDIA, ROWS, Column, RowType
from sfu.schema.layout import Layout

START_BPS = 600_000
"""What is sent before the first feedback."""
MIN_BPS = 30_000
"""An estimate never falls below: audio and its feedback need so much."""
MAX_BPS = 100_000_000
"""An estimate never rises above, whatever a peer claims to have received."""
TREND_GROUPS = 20
"""Groups of packets through whose delays the trendline is drawn."""
OBSERVATIONS = 15
"""Spans of at least 250 ms over which the loss model looks back."""
RTT_REPORTS = 8
"""The round trip is the least of so many feedback packets."""
PROBES = 4
"""Probe clusters whose packets may still be reported."""

DELAY_NORMAL, DELAY_GROWING, DELAY_SHRINKING = 0, 1, 2
"""Values of `delay_state`: what the trendline says of the delay on the path."""

PROBE = RowType(
    "probe",
    "One cluster of packets sent at a known rate, and what was reported of it.",
    (
        Column("cluster", "i8", MEDIA, "Number of the cluster; 0: the row is free."),
        Column("bps", "i8", MEDIA, "The rate at which the cluster was to be sent."),
        Column("least_bytes", "i8", MEDIA, "Least number of bytes that the cluster was to have."),
        Column("least_packets", "i8", MEDIA, "Least number of packets that the cluster was to have."),
        Column("packets", "i8", MEDIA, "Packets of the cluster that were reported as received."),
        Column("bytes", "i8", MEDIA, "Bytes of the packets that were reported as received."),
        Column("first_sent_ns", "i8", MEDIA, "When the first packet received left."),
        Column("last_sent_ns", "i8", MEDIA, "When the last burst of which a packet was received began to leave."),
        Column("last_burst_bytes", "i8", MEDIA, "Bytes received of the last burst."),
        Column("first_arrival_ns", "i8", MEDIA, "When the first packet received arrived."),
        Column("first_bytes", "i8", MEDIA, "Bytes of the packet that arrived first."),
        Column("last_arrival_ns", "i8", MEDIA, "When the last packet received arrived."),
    ),
)

ESTIMATE = RowType(
    "estimate",
    "The bandwidth estimate of one transport.",
    (
        # what others read
        Column("target_bps", "i8", MEDIA, "The estimate: what may be sent.", initial=START_BPS),
        Column("probe_cluster", "i8", MEDIA, "Number of the probe that is to be sent now; 0: none."),
        Column("probe_bps", "i8", MEDIA, "The rate at which the probe of `probe_cluster` is to be sent."),
        Column("probe_bytes_left", "i8", MEDIA, "Bytes of the probe that are still to be sent."),
        Column("probe_packets_left", "i8", MEDIA, "Packets of the probe that, at least, are still to be sent."),
        Column("rtt_ns", "i8", MEDIA, "Least round trip of the last reports, with the receiver's wait; 0: unknown."),
        Column(
            "delay_state",
            "i4",
            MEDIA,
            "State of the queue on the path: DELAY_NORMAL, DELAY_GROWING or DELAY_SHRINKING.",
        ),
        Column("loss_state", "i4", MEDIA, "What the loss model says: LOSS_NONE, LOSS_INCREASING or LOSS_DECREASING."),
        Column("application_limited", "i4", MEDIA, "Whether less is being sent than could be."),
        Column("silent", "i4", MEDIA, "Whether feedback stopped while we send."),
        Column("feedbacks", "i8", MEDIA, "Feedback packets handled; 0: none ever came."),
        Column("acknowledged_bps", "f8", MEDIA, "Rate at which packets arrive; 0: unknown."),
        Column("preferred_bps", "i8", MEDIA, "What everything that the client's subscriptions prefer would cost."),
        # the feedback in hand
        Column("received", "i4", MEDIA, "Packets that the feedback in hand reports as received."),
        Column("delay_recovered", "i4", MEDIA, "Whether the queue stopped shrinking during the feedback in hand."),
        Column(
            "newest_sent_ns", "i8", MEDIA, "When the newest packet that the feedback in hand reports as received left."
        ),
        Column("probe_result_bps", "i8", MEDIA, "What a probe in the feedback in hand measured; 0: nothing."),
        Column("feedback_ns", "i8", MEDIA, "When the last feedback came."),
        Column("rtts_ns", "i8", MEDIA, "Round trips of the last reports; 0: none.", shape=RTT_REPORTS),
        Column("rtt_next", "i8", MEDIA, "Place in `rtts_ns` at which the next round trip is written."),
        # groups: packets that left within 5 ms, and those before
        Column("group_open", "i8", MEDIA, "Whether the group that grows has packets."),
        Column("group_first_sent_ns", "i8", MEDIA, "When the first packet of the group left."),
        Column("group_sent_ns", "i8", MEDIA, "When the last packet of the group left."),
        Column("group_first_arrival_ns", "i8", MEDIA, "When the first packet of the group arrived."),
        Column("group_arrival_ns", "i8", MEDIA, "When the last packet of the group arrived."),
        Column("group_feedback_ns", "i8", MEDIA, "When the feedback about the group's last packet came."),
        Column("before_known", "i8", MEDIA, "Whether there was a group before the one that grows."),
        Column("before_sent_ns", "i8", MEDIA, "When the last packet of the group before left."),
        Column("before_arrival_ns", "i8", MEDIA, "When the last packet of the group before arrived."),
        Column("before_feedback_ns", "i8", MEDIA, "When the feedback about the last packet of the group before came."),
        Column("groups_reordered", "i4", MEDIA, "Groups in a row that arrived before their predecessor."),
        Column("group_own_ms", "f4", MEDIA, "How long our own packets let the last complete group wait."),
        # trains: packets that left in a burst, and the queue that they make
        Column("train_packets", "i4", MEDIA, "Packets of the train that grows."),
        Column("train_bytes", "i4", MEDIA, "Bytes of the train's packets, without the first one's."),
        Column("train_first_sent_ns", "i8", MEDIA, "When the first packet of the train left."),
        Column("train_sent_ns", "i8", MEDIA, "When the last packet of the train left."),
        Column("train_first_arrival_ns", "i8", MEDIA, "When the first packet of the train arrived."),
        Column("train_arrival_ns", "i8", MEDIA, "When all packets of the train had arrived."),
        Column("train_ns", "i8", MEDIA, "When the feedback about the train's last packet came."),
        Column("train_bps", "f4", MEDIA, "Rate at which trains arrive that fill the path; 0: unknown."),
        Column(
            "own_bytes", "f4", MEDIA, "How much of what we sent would wait on a path of the rate `train_bps`, in bytes."
        ),
        Column("mean_bytes", "f4", MEDIA, "Bytes that leave in a second, as a decaying mean."),
        Column("train_pause_ms", "f4", MEDIA, "Longest time between two arrivals of the train."),
        # trendline
        Column("delay_count", "i8", MEDIA, "Changes of delay seen so far, at most 1,000."),
        Column(
            "trend_arrivals_ms",
            "f8",
            MEDIA,
            "Arrivals of the last groups; the oldest is overwritten.",
            shape=TREND_GROUPS,
        ),
        Column(
            "trend_delays_ms", "f8", MEDIA, "Smoothed delays of the groups in `trend_arrivals_ms`.", shape=TREND_GROUPS
        ),
        Column("trend_length", "i4", MEDIA, "How many groups `trend_arrivals_ms` holds."),
        Column("trend_next", "i4", MEDIA, "Place in `trend_arrivals_ms` at which the next group is written."),
        Column("trend_first_ns", "i8", MEDIA, "Arrival of the first group, from which the arrivals in ms are counted."),
        Column("trend_last_ms", "f8", MEDIA, "Arrival of the newest group."),
        Column(
            "delay_ms",
            "f8",
            MEDIA,
            "One-way delay of the newest group, counted from the first: the sum of all changes.",
        ),
        Column("smoothed_delay_ms", "f8", MEDIA, "Smoothed one-way delay of the newest group."),
        Column("base_ms", "f8", MEDIA, "Least `delay_ms` of the last 10 s or less."),
        Column("base_before_ms", "f8", MEDIA, "Least `delay_ms` of the 10 s before those of `base_ms`."),
        Column("base_from_ms", "f8", MEDIA, "Arrival at which the 10 s of `base_ms` began."),
        Column("drains", "i8", MEDIA, "Decreases in a row that were made because of a standing queue."),
        Column("trend", "f8", MEDIA, "Slope of the trendline: growth of the queue by time."),
        Column("threshold", "f8", MEDIA, "The queue grows when the slope is above this; it adapts.", initial=12.5),
        Column("growing_ms", "f8", MEDIA, "How long the slope has been above `threshold`; -1: it is not.", initial=-1),
        Column("growing_count", "i8", MEDIA, "For how many groups the slope has been above `threshold`."),
        # rate from delay
        Column("delay_bps", "f8", MEDIA, "The rate that the delay-based control allows.", initial=START_BPS),
        Column("rate_state", "i8", MEDIA, "State of the delay-based control: RATE_HOLD or RATE_INCREASE."),
        Column("rate_changed_ns", "i8", MEDIA, "When `delay_bps` was last changed; 0: never."),
        Column("capacity_kbps", "f8", MEDIA, "Smoothed acknowledged rate at the moments when queues grew; 0: unknown."),
        Column("capacity_deviation", "f8", MEDIA, "Normalised variance of `capacity_kbps`.", initial=0.4),
        # acknowledged rate
        Column("window_open", "i8", MEDIA, "Whether the window over which arrivals are counted has begun."),
        Column("window_ns", "i8", MEDIA, "How long the window has lasted, by arrivals."),
        Column("window_bytes", "i8", MEDIA, "Bytes that arrived in the window."),
        Column("window_arrival_ns", "i8", MEDIA, "Arrival of the newest packet in the window."),
        Column("window_first_sent_ns", "i8", MEDIA, "When the last packet before the window left."),
        Column("window_last_sent_ns", "i8", MEDIA, "When the last packet of the window left."),
        Column("acknowledged_variance", "f8", MEDIA, "Uncertainty of `acknowledged_bps`, in (kbit/s)^2.", initial=50),
        # loss model
        Column("loss_bps", "f8", MEDIA, "The loss model's best candidate; 0: unknown."),
        Column(
            "inherent_loss",
            "f8",
            MEDIA,
            "Share of bytes that the path loses at any rate, by the loss model.",
            initial=0.01,
        ),
        Column("loss_result_bps", "f8", MEDIA, "The rate that the loss model lets be sent."),
        Column("average_loss", "f8", MEDIA, "Share of lost bytes in all observations, without the extremes."),
        Column("observations", "i8", MEDIA, "How many observations were made so far."),
        Column(
            "observed_bytes",
            "f8",
            MEDIA,
            "Bytes reported in each observation; the oldest is overwritten.",
            shape=OBSERVATIONS,
        ),
        Column("observed_lost", "f8", MEDIA, "Bytes reported missing in each observation.", shape=OBSERVATIONS),
        Column(
            "observed_bps", "f8", MEDIA, "Rate at which the packets of each observation were sent.", shape=OBSERVATIONS
        ),
        Column("observed_end_ns", "i8", MEDIA, "When the last packet of each observation left.", shape=OBSERVATIONS),
        Column("observed_ns", "i8", MEDIA, "When the last packet of the newest observation left; 0: none."),
        Column("partial_bytes", "i8", MEDIA, "Bytes of the observation that is growing."),
        Column("partial_lost", "i8", MEDIA, "Bytes reported missing in the observation that is growing."),
        Column("partial_ns", "i8", MEDIA, "When the last packet of the observation that is growing left."),
        Column("hold_until_ns", "i8", MEDIA, "Until then the loss model lets the rate not rise above `hold_bps`."),
        Column("hold_ns", "i8", MEDIA, "How long the next hold of the loss model lasts.", initial=300_000_000),
        Column("hold_bps", "f8", MEDIA, "Highest rate during a hold of the loss model; 0: no hold."),
        Column("ramp_ns", "i8", MEDIA, "When `ramp_bps` was set; 0: never."),
        Column("ramp_bps", "f8", MEDIA, "Highest rate that an increase after a decrease may reach in 300 ms."),
        # application-limited detection
        Column(
            "budget_bytes",
            "f8",
            MEDIA,
            "Bytes that could have been sent and were not; negative: more was sent than could be.",
        ),
        Column("budget_ns", "i8", MEDIA, "When `budget_bytes` was last counted; 0: never."),
        Column("sent_bytes", "i8", MEDIA, "Bytes sent so far, as last told to the estimate."),
        Column(
            "limited_ended_ns",
            "i8",
            MEDIA,
            "When the application stopped being the limit; 0: the change has been handled.",
        ),
        # feedback that stopped or never came
        Column("answered_bytes", "i8", MEDIA, "`sent_bytes` at the last feedback."),
        Column("unanswered_ns", "i8", MEDIA, "Since when more has been sent without feedback; 0: nothing has."),
        Column("silent_from_bps", "i8", MEDIA, "`target_bps` when feedback stopped."),
        Column("first_sent_ns", "i8", MEDIA, "When the first bytes were sent; 0: none yet."),
        Column(
            "by_reports", "i8", MEDIA, "Whether receiver reports and REMB rule, because no transport-cc feedback comes."
        ),
        Column("report_ns", "i8", MEDIA, "When a receiver report last changed `report_bps`."),
        Column("report_bps", "f8", MEDIA, "The rate that receiver reports allow.", initial=MAX_BPS),
        Column("receiver_bps", "i8", MEDIA, "The peer's last REMB.", initial=MAX_BPS),
        Column("receiver_ns", "i8", MEDIA, "When the peer's last REMB came; 0: none did."),
        Column(
            "receiver_factor",
            "f8",
            MEDIA,
            "How many times `receiver_bps` may be sent while no loss is reported.",
            initial=1,
        ),
        # another path
        Column("moved_ns", "i8", MEDIA, "When the last probe after a change of the path was sent; 0: none was."),
        # probing
        Column("probes", PROBE, ROWS, "The last probe clusters, by number.", shape=PROBES),
        Column("last_cluster", "i8", MEDIA, "Number of the last probe cluster."),
        Column("probe_ns", "i8", MEDIA, "When the last probe cluster was begun; 0: never."),
        Column("probe_waiting", "i8", MEDIA, "Whether the result of the last probe is being waited for."),
        Column(
            "probe_further_bps", "f8", MEDIA, "A probe that measures this or more leads to the next one; 0: none does."
        ),
        Column("start_probes", "i4", MEDIA, "How often the first probe may yet be sent without a result.", initial=3),
        Column("probe_due", "i4", MEDIA, "Whether a probe is to begin as soon as the delay allows it."),
        Column("probed_preferred_bps", "i8", MEDIA, "`preferred_bps` when a probe was last begun because of it."),
        Column("dropped_ns", "i8", MEDIA, "When the estimate last fell by a third; 0: never, or it has recovered."),
        Column("dropped_from_bps", "i8", MEDIA, "The estimate before the fall at `dropped_ns`."),
        Column("still_ns", "i8", MEDIA, "Since when the estimate has not risen above `still_bps`."),
        Column(
            "still_bps", "i8", MEDIA, "The estimate that has not been exceeded since `still_ns`.", initial=START_BPS
        ),
    ),
    layout=Layout.WHOLE_LINES,
)
estimate_t = ESTIMATE.dtype
