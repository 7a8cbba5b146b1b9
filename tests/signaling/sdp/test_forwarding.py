"""Wanted tracks and their subscriptions."""

from dataclasses import replace

from sfu.engine import EngineError
from sfu.parameters import Codec, Kind, SubscriptionId, TrackId
from signaling.sdp.codecs import Format
from signaling.sdp.forwarding import Forwardings
from signaling.sdp.negotiation import Beginning, Selection, WantedTrack
from signaling.sdp.session_description import RtpMap
from tests.signaling.support.recording_engine import RecordingEngine

VP8_OF_1 = Selection((Codec.VP8, "", TrackId(1)), Format(RtpMap(96, "VP8", 90_000), Codec.VP8))


def track(sid: str, *sources: int) -> WantedTrack:
    return WantedTrack(sid, "PA_p", Kind.VIDEO, tuple((Codec.VP8, "", TrackId(r)) for r in sources), "PA_p")


def forwardings(engine: RecordingEngine) -> Forwardings:
    return Forwardings(engine.engine, engine.open_transport().id)


def test_a_track_waits_until_it_is_started() -> None:
    tracks = forwardings(RecordingEngine())
    tracks.want(track("TR_a", 1))
    tracks.want(track("TR_b"))
    assert [each.track_sid for each in tracks.waiting()] == ["TR_a"]
    assert tracks.start(tracks.by_sid["TR_a"], "0", VP8_OF_1)
    assert tracks.waiting() == []
    assert tracks.by_mid() == [("0", "TR_a")]
    assert tracks.by_sid["TR_a"].subscription is not None


def test_a_track_begins_as_is_said_when_it_starts() -> None:
    engine = RecordingEngine()
    tracks = forwardings(engine)
    said = [Beginning()]
    tracks.want(replace(track("TR_a", 1), begin=lambda: said[-1]))
    said.append(Beginning(0, 1, 2, 640 * 360, silence=True))
    assert tracks.start(tracks.by_sid["TR_a"], "0", VP8_OF_1, paused=True)
    parameters = engine.last("subscribe")[2]
    assert (parameters.spatial, parameters.temporal, parameters.silence, parameters.paused) == (0, 1, True, True)
    assert (parameters.priority, parameters.pixels) == (2, 640 * 360)


def test_a_subscription_lives_while_its_receiver_does() -> None:
    engine = RecordingEngine()
    tracks = forwardings(engine)
    tracks.want(track("TR_a", 1))
    tracks.start(tracks.by_sid["TR_a"], "0", VP8_OF_1)
    tracks.want(track("TR_a", 2, 1))
    assert "unsubscribe" not in engine.names()
    tracks.want(track("TR_a", 2))
    assert "unsubscribe" in engine.names()
    assert [each.track_sid for each in tracks.waiting()] == ["TR_a"]


def test_a_receiver_that_turned_to_another_codec_is_subscribed_anew() -> None:
    engine = RecordingEngine()
    tracks = forwardings(engine)
    tracks.want(track("TR_a", 1))
    tracks.start(tracks.by_sid["TR_a"], "0", VP8_OF_1)
    tracks.want(WantedTrack("TR_a", "PA_p", Kind.VIDEO, ((Codec.H264, "", TrackId(1)),), "PA_p"))
    assert engine.last("unsubscribe") is not None
    assert [each.track_sid for each in tracks.waiting()] == ["TR_a"]


def test_a_refused_track_is_tried_again_when_it_is_wanted_again() -> None:
    engine = RecordingEngine()
    tracks = forwardings(engine)
    tracks.want(track("TR_a", 1))
    engine.full = True
    assert not tracks.start(tracks.by_sid["TR_a"], "0", VP8_OF_1)
    assert tracks.waiting() == []
    tracks.want(track("TR_a", 1))
    assert [each.track_sid for each in tracks.waiting()] == ["TR_a"]


def test_a_subscription_that_ended_with_its_receiver_may_be_stopped() -> None:
    class Ended(RecordingEngine):
        def unsubscribe(self, subscription: SubscriptionId) -> None:
            raise EngineError("unknown subscription")

    tracks = forwardings(Ended())
    tracks.want(track("TR_a", 1))
    tracks.start(tracks.by_sid["TR_a"], "0", VP8_OF_1)
    tracks.unwant("TR_a")
    tracks.unwant("TR_a")
    assert tracks.by_sid == {}


def test_a_track_that_is_wanted_again_has_another_way() -> None:
    tracks = forwardings(RecordingEngine())
    before = tracks.want(track("TR_a", 1))
    assert tracks.want(track("TR_a", 2)) is before
    assert tracks.holds(before)
    tracks.unwant("TR_a")
    assert not tracks.holds(before)
    after = tracks.want(track("TR_a", 1))
    assert tracks.holds(after)
    assert not tracks.holds(before)
    assert not tracks.holds(None)
