"""signaling/rooms/access.py: who may have which track."""

from livekit.protocol.rtc import SubscriptionPermission, TrackPermission

from signaling.rooms.access import SubscriptionAccess


def test_a_list_holds_as_it_was_read_and_keeps_nothing_of_its_request() -> None:
    request = SubscriptionPermission(
        track_permissions=[
            TrackPermission(participant_identity="ann", track_sids=["TR_1"]),
            TrackPermission(participant_sid="PA_2", all_tracks=True),
        ]
    )
    access = SubscriptionAccess.parse(request)
    request.track_permissions[0].track_sids.append("TR_2")
    request.track_permissions[1].all_tracks = False
    assert access.allows("PA_1", "ann", "TR_1")
    assert not access.allows("PA_1", "ann", "TR_2")
    assert access.allows("PA_2", "bob", "TR_2")
    assert not access.allows("PA_3", "cleo", "TR_1")
