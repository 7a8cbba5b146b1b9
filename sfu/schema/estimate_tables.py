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

PROBE = RowType(
    "probe",
    "One cluster of packets sent at a known rate, and what was reported of it.",
    (
        Column("cluster", "i8", MEDIA, "Its number; 0: none."),
        Column("bps", "i8", MEDIA, "The rate at which it was to be sent."),
        Column("wanted_bytes", "i8", MEDIA, "How much it was to have."),
        Column("wanted_packets", "i8", MEDIA, "In so many packets at least."),
        Column("packets", "i8", MEDIA, "Reported as received."),
        Column("bytes", "i8", MEDIA, "Bytes of them."),
        Column("first_sent_ns", "i8", MEDIA, "When the first of them left."),
        Column("last_sent_ns", "i8", MEDIA, "When the last burst of them began to leave."),
        Column("last_burst_bytes", "i8", MEDIA, "Bytes of that burst."),
        Column("first_arrival_ns", "i8", MEDIA, "When the first of them arrived."),
        Column("first_bytes", "i8", MEDIA, "Bytes of that packet."),
        Column("last_arrival_ns", "i8", MEDIA, "When the last of them arrived."),
    ),
)

ESTIMATE = RowType(
    "estimate",
    "The bandwidth estimate of one transport.",
    (
        # what others read
        Column("target_bps", "i8", MEDIA, "What may be sent.", initial=START_BPS),
        Column("probe_cluster", "i8", MEDIA, "Number of the probe that is to be sent now; 0: none."),
        Column("probe_bps", "i8", MEDIA, "The rate at which it is to be sent."),
        Column("probe_bytes_left", "i8", MEDIA, "How many bytes of it have not been sent."),
        Column("probe_packets_left", "i8", MEDIA, "How many packets of it, at least, have not been sent."),
        Column("rtt_ns", "i8", MEDIA, "Least round trip of the last reports, with the receiver's wait; 0: unknown."),
        Column("delay_state", "i4", MEDIA, "Of the queue on the path: DELAY_NORMAL, _GROWING, _SHRINKING."),
        Column("loss_state", "i4", MEDIA, "What the loss model says: LOSS_NONE, _INCREASING, _DECREASING."),
        Column("application_limited", "i4", MEDIA, "Less is being sent than could be."),
        Column("silent", "i4", MEDIA, "Feedback stopped while we send."),
        Column("feedbacks", "i8", MEDIA, "Feedback packets handled; 0: none ever came."),
        Column("acknowledged_bps", "f8", MEDIA, "Rate at which packets arrive; 0: unknown."),
        Column("wish_bps", "i8", MEDIA, "What all that the client wishes would cost."),
        # the feedback in hand
        Column("received", "i4", MEDIA, "Packets that it reports as received."),
        Column("delay_recovered", "i4", MEDIA, "During it the queue stopped shrinking."),
        Column("newest_sent_ns", "i8", MEDIA, "When the newest of them left."),
        Column("probe_result_bps", "i8", MEDIA, "What a probe in it measured; 0: nothing."),
        Column("feedback_ns", "i8", MEDIA, "When the last feedback came."),
        Column("rtts_ns", "i8", MEDIA, "Round trips of the last reports; 0: none.", shape=RTT_REPORTS),
        Column("rtt_next", "i8", MEDIA, "Where the next is written."),
        # groups: packets that left within 5 ms, and those before
        Column("group_open", "i8", MEDIA, "A group has packets."),
        Column("group_first_sent_ns", "i8", MEDIA, "When its first packet left."),
        Column("group_sent_ns", "i8", MEDIA, "When its last packet left."),
        Column("group_first_arrival_ns", "i8", MEDIA, "When its first packet arrived."),
        Column("group_arrival_ns", "i8", MEDIA, "When it had arrived whole."),
        Column("group_heard_ns", "i8", MEDIA, "When we were told so."),
        Column("before_known", "i8", MEDIA, "There was a group before."),
        Column("before_sent_ns", "i8", MEDIA, "When its last packet left."),
        Column("before_arrival_ns", "i8", MEDIA, "When it had arrived whole."),
        Column("before_heard_ns", "i8", MEDIA, "When we were told so."),
        Column("groups_reordered", "i4", MEDIA, "Groups in a row that arrived before the one before."),
        Column("group_own_ms", "f4", MEDIA, "How long our own packets let the last complete group wait."),
        # trains: packets that left in a burst, and the queue that they make
        Column("train_packets", "i4", MEDIA, "Packets of the train that grows."),
        Column("train_bytes", "i4", MEDIA, "Their bytes without the first one's."),
        Column("train_first_sent_ns", "i8", MEDIA, "When the first left."),
        Column("train_sent_ns", "i8", MEDIA, "When the last left."),
        Column("train_first_arrival_ns", "i8", MEDIA, "When the first arrived."),
        Column("train_arrival_ns", "i8", MEDIA, "When all had arrived."),
        Column("train_ns", "i8", MEDIA, "When the feedback about the last of them came."),
        Column("train_bps", "f4", MEDIA, "Rate at which trains arrive that fill the path; 0: unknown."),
        Column("own_bytes", "f4", MEDIA, "Of our packets what would wait on a path of that rate."),
        Column("mean_bytes", "f4", MEDIA, "What leaves in a second, decaying."),
        # trendline
        Column("delay_count", "i8", MEDIA, "Changes of delay seen, at most 1,000."),
        Column(
            "trend_arrivals_ms", "f8", MEDIA, "Arrivals of the last groups, the oldest overwritten.", shape=TREND_GROUPS
        ),
        Column("trend_delays_ms", "f8", MEDIA, "Their smoothed delays.", shape=TREND_GROUPS),
        Column("trend_length", "i4", MEDIA, "How many groups are there."),
        Column("trend_next", "i4", MEDIA, "Where the next is written."),
        Column("trend_first_ns", "i8", MEDIA, "Arrival from which the others are counted."),
        Column("trend_last_ms", "f8", MEDIA, "Arrival of the newest group."),
        Column("delay_ms", "f8", MEDIA, "Sum of all changes of delay."),
        Column("smoothed_delay_ms", "f8", MEDIA, "It, smoothed."),
        Column("base_ms", "f8", MEDIA, "Least `delay_ms` of the last 10 s or less."),
        Column("base_before_ms", "f8", MEDIA, "Of the 10 s before."),
        Column("base_from_ms", "f8", MEDIA, "Arrival at which the last 10 s began."),
        Column("drains", "i8", MEDIA, "Decreases because of a queue that stands, since there was none."),
        Column("trend", "f8", MEDIA, "Slope of the line: growth of the queue by time."),
        Column("threshold", "f8", MEDIA, "Beyond it the queue grows; it adapts.", initial=12.5),
        Column("growing_ms", "f8", MEDIA, "How long the slope has been beyond it; -1: is not.", initial=-1),
        Column("growing_count", "i8", MEDIA, "For how many groups."),
        # rate from delay
        Column("delay_bps", "f8", MEDIA, "What delay allows.", initial=START_BPS),
        Column("rate_state", "i8", MEDIA, "RATE_HOLD or RATE_INCREASE."),
        Column("rate_changed_ns", "i8", MEDIA, "When it was last changed; 0: never."),
        Column("capacity_kbps", "f8", MEDIA, "Acknowledged rate when queues grew, smoothed; 0: unknown."),
        Column("capacity_deviation", "f8", MEDIA, "Its normalised variance.", initial=0.4),
        # acknowledged rate
        Column("window_open", "i8", MEDIA, "A packet began the window."),
        Column("window_ns", "i8", MEDIA, "How long it has lasted, by arrivals."),
        Column("window_bytes", "i8", MEDIA, "What arrived in it."),
        Column("window_arrival_ns", "i8", MEDIA, "Last arrival."),
        Column("window_first_sent_ns", "i8", MEDIA, "When the last packet before it left."),
        Column("window_last_sent_ns", "i8", MEDIA, "When the last packet of it left."),
        Column("acknowledged_variance", "f8", MEDIA, "Uncertainty of `acknowledged_bps`, in (kbit/s)^2.", initial=50),
        # loss model
        Column("loss_bps", "f8", MEDIA, "The best candidate: what loss allows; 0: unknown."),
        Column("inherent_loss", "f8", MEDIA, "Share that is lost whatever is sent.", initial=0.01),
        Column("loss_result_bps", "f8", MEDIA, "What the model lets be sent."),
        Column("average_loss", "f8", MEDIA, "Share of lost bytes in all observations, without the extremes."),
        Column("observations", "i8", MEDIA, "How many there were."),
        Column("observed_bytes", "f8", MEDIA, "Bytes reported in each, the oldest overwritten.", shape=OBSERVATIONS),
        Column("observed_lost", "f8", MEDIA, "Those reported missing.", shape=OBSERVATIONS),
        Column("observed_bps", "f8", MEDIA, "Rate at which they were sent.", shape=OBSERVATIONS),
        Column("observed_end_ns", "i8", MEDIA, "When the last packet of each left.", shape=OBSERVATIONS),
        Column("observed_ns", "i8", MEDIA, "When the last packet of the newest left; 0: none."),
        Column("partial_bytes", "i8", MEDIA, "Bytes of the observation that is growing."),
        Column("partial_lost", "i8", MEDIA, "Those reported missing."),
        Column("partial_ns", "i8", MEDIA, "When its last packet left."),
        Column("hold_until_ns", "i8", MEDIA, "Until then no increase beyond `hold_bps`."),
        Column("hold_ns", "i8", MEDIA, "How long the next hold lasts.", initial=300_000_000),
        Column("hold_bps", "f8", MEDIA, "0: no hold."),
        Column("ramp_ns", "i8", MEDIA, "When `ramp_bps` was set; 0: never."),
        Column("ramp_bps", "f8", MEDIA, "Most that an increase may reach in 300 ms."),
        # application-limited detection
        Column("budget_bytes", "f8", MEDIA, "What could have been sent and was not; negative: overdrawn."),
        Column("budget_ns", "i8", MEDIA, "When it was last counted; 0: never."),
        Column("sent_bytes", "i8", MEDIA, "Running total of bytes sent, as last told."),
        Column("limited_ended_ns", "i8", MEDIA, "The application stopped being the limit then; 0: handled."),
        # feedback that stopped or never came
        Column("answered_bytes", "i8", MEDIA, "`sent_bytes` at the last feedback."),
        Column("unanswered_ns", "i8", MEDIA, "Since when more was sent without feedback; 0: was not."),
        Column("silent_from_bps", "i8", MEDIA, "`target_bps` when feedback stopped."),
        Column("first_sent_ns", "i8", MEDIA, "When the first bytes were sent; 0: none yet."),
        Column("by_reports", "i8", MEDIA, "No feedback comes: receiver reports and REMB rule."),
        Column("report_ns", "i8", MEDIA, "Last change by a receiver report."),
        Column("report_bps", "f8", MEDIA, "What receiver reports allow.", initial=MAX_BPS),
        Column("receiver_bps", "i8", MEDIA, "Last REMB.", initial=MAX_BPS),
        Column("receiver_ns", "i8", MEDIA, "When that came; 0: none did."),
        Column("receiver_factor", "f8", MEDIA, "How many times it may be sent while no loss is reported.", initial=1),
        # another path
        Column("moved_ns", "i8", MEDIA, "When a change of the path was last probed after; 0: none was."),
        # probing
        Column("probes", PROBE, ROWS, "The last clusters, by number.", shape=PROBES),
        Column("last_cluster", "i8", MEDIA, "Number of the last one."),
        Column("probe_ns", "i8", MEDIA, "When it was begun; 0: never."),
        Column("probe_waiting", "i8", MEDIA, "Its result is being waited for."),
        Column("probe_further_bps", "f8", MEDIA, "A result above leads to the next one; 0: none does."),
        Column("start_probes", "i4", MEDIA, "How often the first probe may yet be sent without a result.", initial=3),
        Column("probe_due", "i4", MEDIA, "One is to begin as soon as the delay allows it."),
        Column("probed_wish_bps", "i8", MEDIA, "Wish for which one was last begun."),
        Column("dropped_ns", "i8", MEDIA, "When the estimate last fell by a third; 0: not, or forgotten."),
        Column("dropped_from_bps", "i8", MEDIA, "From where."),
        Column("still_ns", "i8", MEDIA, "Since when the estimate got no further."),
        Column("still_bps", "i8", MEDIA, "Than there.", initial=START_BPS),
    ),
    layout=Layout.WHOLE_LINES,
)
estimate_t = ESTIMATE.dtype
