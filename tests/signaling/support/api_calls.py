"""Every call of the server API, and the grant that it needs."""

EVERYTHING = {
    "roomCreate": True,
    "roomList": True,
    "roomRecord": True,
    "ingressAdmin": True,
    "roomAdmin": True,
    "room": "hall",
    "destinationRoom": "attic",
}
CALLS_BY_GRANT = {
    "roomCreate": "RoomService/CreateRoom RoomService/DeleteRoom",
    "roomList": "RoomService/ListRooms",
    "roomAdmin": """
        RoomService/UpdateRoomMetadata RoomService/ListParticipants RoomService/GetParticipant
        RoomService/RemoveParticipant RoomService/UpdateParticipant RoomService/MutePublishedTrack
        RoomService/UpdateSubscriptions RoomService/SendData RoomService/PerformRpc
        AgentDispatchService/CreateDispatch AgentDispatchService/DeleteDispatch AgentDispatchService/ListDispatch
    """,
    "destinationRoom": "RoomService/MoveParticipant RoomService/ForwardParticipant",
    "roomRecord": """
        Egress/StartEgress Egress/StartRoomCompositeEgress Egress/StartWebEgress Egress/StartParticipantEgress
        Egress/StartTrackCompositeEgress Egress/StartTrackEgress Egress/UpdateLayout Egress/UpdateStream
        Egress/ListEgress Egress/StopEgress
    """,
    "ingressAdmin": "Ingress/CreateIngress Ingress/UpdateIngress Ingress/ListIngress Ingress/DeleteIngress",
    "admin": """
        SIP/CreateSIPInboundTrunk SIP/UpdateSIPInboundTrunk SIP/GetSIPInboundTrunk SIP/ListSIPInboundTrunk
        SIP/CreateSIPOutboundTrunk SIP/UpdateSIPOutboundTrunk SIP/GetSIPOutboundTrunk SIP/ListSIPOutboundTrunk
        SIP/ListSIPTrunk SIP/DeleteSIPTrunk SIP/CreateSIPDispatchRule SIP/UpdateSIPDispatchRule
        SIP/ListSIPDispatchRule SIP/DeleteSIPDispatchRule
    """,
    "call": "SIP/CreateSIPParticipant SIP/TransferSIPParticipant",
}
CALLS = {name: grant for grant, names in CALLS_BY_GRANT.items() for name in names.split()}
"""Call -> the grant that it needs."""
FIELDS = {"room": "hall", "destination_room": "attic", "room_name": "hall"}
