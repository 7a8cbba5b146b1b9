"""An end to what would run for ever: for parsers, whose input decides how long they loop."""

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

KERNEL_FACTOR = 10
"""Python's signal handlers do not run within a compiled kernel. One that does not end ends the test run instead, after
this many times the deadline in wall-clock time, so that a busy machine does not do it."""

PARSER_TESTS = {
    "sfu.control.data.association": "test_any_chunk_raises_nothing_but_transport_failure",
    "sfu.media.wire.dependency": "test_any_bytes_read_as_by_the_slow_twin_or_stay_unknown",
    "sfu.media.wire.describe": "test_any_bytes_describe_themselves_within_the_packet",
    "sfu.control.security.dtls": "test_any_datagram_is_taken_or_ends_the_connection",
    "sfu.media.receive.ingress": "test_any_bytes_are_stored_or_counted",
    "sfu.control.data.reassembly": "test_messages_come_whole_and_in_order_however_the_chunks_come",
    "sfu.media.wire.layers_allocation": "test_nothing_is_read_beyond_the_end",
    "sfu.control.data.sctp_packets": "test_every_conversation_goes_as_it_would_without_the_quick_way",
    "sfu.media.wire.red": "test_red_primary_is_where_a_plain_reading_finds_it",
    "sfu.media.rtcp.transport_feedback": "test_no_feedback_harms",
    "sfu.media.rtcp.incoming": "test_any_bytes_are_obeyed_or_counted",
    "sfu.media.wire.rtp": "test_any_bytes_are_refused_or_lie_inside_the_packet",
    "sfu.control.data.sctp_fence": "test_any_packet_is_judged_in_one_pass",
    "sfu.media.net.stun": "test_no_bytes_at_all_are_answered_without_the_password",
    "signaling.api.encoding": "test_any_body_is_a_request_or_an_api_error",
    "signaling.config.configuration": "test_any_document_is_a_config_or_one_line",
    "signaling.http.connection": "test_any_frame_is_a_request_or_a_bad_message",
    "signaling.participants.data": "test_any_bytes_are_a_data_packet_or_dropped",
    "signaling.http.join": "test_any_query_is_parameters_or_a_join_error",
    "signaling.http.join, join_request": "test_any_wrapped_bytes_are_a_request_or_a_join_error",
    "signaling.sdp.parsing": "test_any_text_is_a_value_or_an_sdp_error",
    "signaling.sdp.parsing, attributes": "test_odd_attributes_never_raise",
    "signaling.http.tokens": "test_any_text_is_a_token_or_refused",
}
"""The test that gives any input to each parser of what comes from clients. These run under PARSER_DEADLINE_S."""
PARSER_DEADLINE_S = 25.0


class Endless(BaseException):
    """The deadline passed. No Exception, which the code under test may catch."""


@contextmanager
def deadline(cpu_seconds: float) -> Iterator[None]:
    """End the body when it uses more CPU time than this. No measurement: it only guards against endless loops."""

    def expired(number: int, frame: FrameType | None) -> None:
        raise Endless(f"not done after {cpu_seconds} s of CPU time")

    previous = signal.signal(signal.SIGVTALRM, expired)
    before = signal.setitimer(signal.ITIMER_VIRTUAL, cpu_seconds)
    if not before[0]:
        faulthandler.dump_traceback_later(cpu_seconds * KERNEL_FACTOR, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, *before)
        if not before[0]:
            faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGVTALRM, previous)
