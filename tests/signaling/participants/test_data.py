"""Data packets: who gets them, and what the server writes into them."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from livekit.protocol import models

from sfu.events import DataReceived
from sfu.parameters import Channel
from signaling.records.nonces import NONCE_BYTES
from tests.signaling.support.call import Call, Client


def user_packet(text: str = "hello", **fields: object) -> models.DataPacket:
    packet = models.DataPacket(user=models.UserPacket(payload=text.encode(), topic="chat"))
    packet.MergeFrom(models.DataPacket(**fields))  # type: ignore[arg-type]
    return packet


def delivered(call: Call, *clients: Client) -> list[models.DataPacket]:
    """Return the packets that went to exactly these clients."""
    wanted = {client.participant.renegotiation.data_transport for client in clients}
    return [
        models.DataPacket.FromString(payload)
        for transports, _, payload in call.engine.sent
        if set(transports) == wanted
    ]


async def test_packet_goes_to_everybody_but_its_sender_with_the_sender_stamped(call: Call) -> None:
    ann, bob, cleo = [await call.join(name) for name in ("ann", "bob", "cleo")]
    forged = user_packet(participant_identity="bob", participant_sid="PA_forged", kind=models.DataPacket.LOSSY)
    forged.user.participant_identity = "bob"
    forged.user.participant_sid = "PA_forged"
    await ann.send_data(forged)
    (packet,) = delivered(call, bob, cleo)
    assert (packet.participant_identity, packet.participant_sid) == ("ann", ann.sid)
    assert (packet.user.participant_identity, packet.user.participant_sid) == ("ann", ann.sid)
    assert packet.kind == models.DataPacket.RELIABLE
    assert (packet.user.payload, packet.user.topic) == (b"hello", "chat")


async def test_lossy_packets_stay_lossy(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.send_data(user_packet(), Channel.LOSSY)
    (packet,) = delivered(call, bob)
    assert packet.kind == models.DataPacket.LOSSY
    assert call.engine.sent[0][1] is Channel.LOSSY


async def test_destinations_are_identities_or_sids(call: Call) -> None:
    ann, bob, cleo = [await call.join(name) for name in ("ann", "bob", "cleo")]
    await ann.send_data(user_packet("to bob", destination_identities=["bob"]))
    to_cleo = user_packet("to cleo")
    to_cleo.user.destination_sids.append(cleo.sid)
    await ann.send_data(to_cleo)
    to_nobody = user_packet("to nobody", destination_identities=["dan"])
    await ann.send_data(to_nobody)
    assert [packet.user.payload for packet in delivered(call, bob)] == [b"to bob"]
    assert [packet.user.payload for packet in delivered(call, cleo)] == [b"to cleo"]
    assert len(call.engine.sent) == 2


async def test_repeated_reliable_packets_are_dropped(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    for sequence in (1, 2, 2, 1, 3):
        await ann.send_data(user_packet(sequence=sequence))
    assert [packet.sequence for packet in delivered(call, bob)] == [1, 2, 3]
    assert call.rooms.node.dropped["data repeated"] == 2


async def test_packets_without_a_sequence_are_never_repeats(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    for _ in range(2):
        await ann.send_data(user_packet())
    assert len(delivered(call, bob)) == 2


async def test_a_repeated_nonce_is_dropped_and_what_is_no_nonce_is_not_kept(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    for nonce in (b"n" * NONCE_BYTES, b"n" * NONCE_BYTES, b"long" * 10_000, b"long" * 10_000, b"short", b"short"):
        packet = user_packet()
        packet.user.nonce = nonce
        await ann.send_data(packet)
    assert len(delivered(call, bob)) == 5
    assert call.rooms.node.dropped["data repeated"] == 1
    assert list(call.room.nonces._seen) == [b"n" * NONCE_BYTES]


async def test_sender_without_the_permission_is_dropped(call: Call) -> None:
    ann = await call.join("ann", {"can_publish_data": False})
    await call.join("bob")
    await ann.send_data(user_packet())
    assert not call.engine.sent
    assert call.rooms.node.dropped["data not allowed"] == 1


async def test_every_variant_passes(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    packets = [
        models.DataPacket(chat_message=models.ChatMessage(id="1", message="hi")),
        models.DataPacket(rpc_request=models.RpcRequest(id="1", method="m"), destination_identities=["bob"]),
        models.DataPacket(rpc_ack=models.RpcAck(request_id="1")),
        models.DataPacket(rpc_response=models.RpcResponse(request_id="1", payload="p")),
        models.DataPacket(stream_header=models.DataStream.Header(stream_id="s", topic="lk.chat")),
        models.DataPacket(stream_chunk=models.DataStream.Chunk(stream_id="s", content=b"x")),
        models.DataPacket(stream_trailer=models.DataStream.Trailer(stream_id="s")),
        models.DataPacket(encrypted_packet=models.EncryptedPacket(encrypted_value=b"secret")),
        models.DataPacket(sip_dtmf=models.SipDTMF(code=1, digit="1")),
    ]
    for packet in packets:
        await ann.send_data(packet)
    for sent, received in zip(packets, delivered(call, bob), strict=True):
        assert received.participant_identity == "ann"
        variant = sent.WhichOneof("value")
        assert variant is not None
        assert getattr(received, variant) == getattr(sent, variant)


async def test_fields_that_we_do_not_know_survive(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    unknown = b"\xfa\x3e\x05hello"  # field 1007, length-delimited
    await ann.send_data(user_packet().SerializeToString() + unknown)
    (_, _, payload) = call.engine.sent[0]
    assert unknown in payload
    assert delivered(call, bob)


async def test_clients_cannot_speak_for_the_server(call: Call) -> None:
    ann = await call.join("ann")
    await call.join("bob")
    await ann.send_data(models.DataPacket(speaker=models.ActiveSpeakerUpdate()))
    await ann.send_data(models.DataPacket(transcription=models.Transcription(track_id="TR_x")))
    assert not call.engine.sent
    assert call.rooms.node.dropped["data kind not allowed"] == 2


async def test_agent_may_speak_for_somebody_else(call: Call) -> None:
    agent = await call.join("agent", kind=models.ParticipantInfo.AGENT)
    bob = await call.join("bob")
    await agent.send_data(
        models.DataPacket(transcription=models.Transcription(track_id="TR_x"), participant_identity="ann")
    )
    await agent.send_data(user_packet(participant_identity="ann"))
    assert [packet.participant_identity for packet in delivered(call, bob)] == ["ann", "agent"]


async def test_hidden_sender_stays_nameless(call: Call) -> None:
    spy, bob = await call.join("spy", {"hidden": True}), await call.join("bob")
    await spy.send_data(user_packet())
    (packet,) = delivered(call, bob)
    assert (packet.participant_identity, packet.user.participant_sid) == ("", "")


async def test_malformed_packets_are_counted_and_cost_nothing(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.send_data(b"\xff\xff\xff garbage")
    await ann.send_data(b"anything", Channel.DATA_TRACK)
    await ann.send_data(user_packet())
    assert len(delivered(call, bob)) == 1
    assert call.rooms.node.dropped["data malformed"] == 2


async def test_dual_client_sends_on_one_connection_and_receives_on_the_other(call: Call) -> None:
    ann = await call.join("ann")
    bob = await call.join("bob", single_pc=False)
    subscriber, publisher = bob.participant.renegotiation.transports
    await ann.send_data(user_packet())
    assert call.engine.sent[-1][0] == (subscriber,)
    bob_sends = models.DataPacket(user=models.UserPacket(payload=b"up"))
    await call.emit(DataReceived(publisher, Channel.RELIABLE, bob_sends.SerializeToString()))
    assert delivered(call, ann)[0].participant_identity == "bob"
    assert call.engine.senders == [ann.transport, publisher], "who is held back when receivers lag"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=200))
async def test_any_bytes_are_a_data_packet_or_dropped(call: Call, payload: bytes) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    before = len(call.engine.sent)
    await ann.send_data(payload)
    assert len(call.engine.sent) - before + sum(call.rooms.node.dropped.values()) >= 1
    assert list(call.room.participants) == ["ann", "bob"]
    assert not bob.connection.ended
