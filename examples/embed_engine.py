"""An SFU inside a program of your own: one peer publishes a tone, the engine forwards it, another peer records it.

    .venv/bin/python examples/embed_engine.py heard.wav

The engine has transports, tracks (what is published) and subscriptions; it knows no rooms, users or SDP. A program
that embeds it brings its own signalling. Here that is `describe` and `read`: SDP with one audio m-section, handed over
within this process. Both peers are aiortc's; a browser would get the same texts by whatever way you like.
"""

import asyncio
import re
import sys

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer, MediaRecorder

from sfu import events, parameters
from sfu.engine import Engine, EngineOptions

SECONDS = 3


def describe(kind: str, ours: parameters.LocalTransport, opus: int, attributes: str) -> RTCSessionDescription:
    """Our half of a transport as SDP, and an m-section whose payload type `opus` means Opus."""
    candidates = [
        f"a=candidate:{each.foundation} 1 udp {each.priority} {each.address} {each.port} typ host\r\n"
        for each in ours.candidates
    ]
    return RTCSessionDescription(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=group:BUNDLE 0\r\n"
        f"m=audio 9 UDP/TLS/RTP/SAVPF {opus}\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtcp-mux\r\n"
        f"a=rtpmap:{opus} opus/48000/2\r\na=ice-ufrag:{ours.ice.ufrag}\r\na=ice-pwd:{ours.ice.password}\r\n"
        f"a=fingerprint:{' '.join(ours.fingerprint)}\r\n{''.join(candidates)}{attributes}",
        kind,
    )


def read(sdp: str) -> tuple[parameters.RemoteTransport, parameters.MediaParameters, int]:
    """The peer's half of a transport, what its payload types mean, and which one is Opus."""
    ice = parameters.IceCredentials(*re.findall(r"a=ice-(?:ufrag|pwd):(\S+)", sdp)[:2])
    opus = int(re.findall(r"a=rtpmap:(\d+) opus/", sdp)[0])
    remote = parameters.RemoteTransport(
        ice, tuple(re.findall(r"a=fingerprint:(\S+) (\S+)", sdp)), parameters.DtlsRole.SERVER
    )
    return remote, parameters.MediaParameters({opus: parameters.PayloadType(parameters.Codec.OPUS, 48_000)}), opus


async def main(path: str) -> None:
    """Forward a tone for SECONDS and write what arrives to `path`."""
    engine = Engine(EngineOptions(udp_ports=(0,), node_ips=("127.0.0.1",)))
    await engine.start()
    speaker, listener = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))

    # The speaker offers. Tell the engine what it offered, and answer with the engine's own half.
    tone = MediaPlayer("sine=frequency=440", format="lavfi").audio
    assert tone is not None
    speaker.addTrack(tone)
    await speaker.setLocalDescription(await speaker.createOffer())
    offer = speaker.localDescription.sdp
    remote, media, opus = read(offer)
    transport = engine.open_transport()
    engine.set_media(transport.id, media)
    engine.connect(transport.id, remote)
    ssrc = int(re.findall(r"a=ssrc:(\d+)", offer)[0])
    track = engine.publish(
        transport.id,
        parameters.PublishParameters(parameters.Kind.AUDIO, mid="0", encodings=(parameters.Encoding(ssrc=ssrc),)),
    )
    answer = describe("answer", transport, opus, "a=recvonly\r\na=setup:passive\r\n")
    await speaker.setRemoteDescription(answer)

    # To the listener we offer: the engine chooses the SSRC, we choose the payload type.
    transport, opus = engine.open_transport(), 111
    subscription = engine.subscribe(track, transport.id, parameters.SubscribeParameters(mid="0", payload_type=opus))
    attributes = f"a=sendonly\r\na=setup:actpass\r\na=ssrc:{subscription.ssrc} cname:tone\r\n"
    await listener.setRemoteDescription(describe("offer", transport, opus, attributes))
    recorder = MediaRecorder(path)
    recorder.addTrack(listener.getReceivers()[0].track)
    await listener.setLocalDescription(await listener.createAnswer())
    remote, media, _ = read(listener.localDescription.sdp)
    engine.set_media(transport.id, media)
    engine.connect(transport.id, remote)
    await recorder.start()

    # What happens comes as events, to one reader. Wait until the tone has begun to come in and to go out.
    awaited = {events.StreamStarted, events.SubscriptionStarted}
    while awaited:
        event = await engine.next_event()
        print(event)
        awaited.discard(type(event))
    await asyncio.sleep(SECONDS)
    print(engine.track_statistics(track))
    print(engine.subscription_statistics(subscription.id))
    await recorder.stop()
    await asyncio.gather(speaker.close(), listener.close())
    await engine.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
