"""What an operator's settings of rooms change for real clients."""

from collections.abc import Iterator

import pytest

from tests.clients.conftest import PeerFactory
from tests.clients.facts import hears, sees
from tests.clients.network import ADDRESS
from tests.clients.sfu_server import ServerUnderTest, running_server

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

STREAMS = """(() => {
    const tracks = [...room.remoteParticipants.get('linus').trackPublications.values()].map(each => each.track);
    return tracks.map(track => track.mediaStream.id);
})()"""


@pytest.fixture(scope="module")
def strict_server(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    """A server whose rooms play in step, in two codecs."""
    folder = tmp_path_factory.mktemp("room_options")
    codecs = "[{mime: audio/opus}, {mime: video/h264}]"
    (folder / "livekit.yaml").write_text(f"room: {{sync_streams: true, enabled_codecs: {codecs}}}\n")
    with running_server(folder, node_ip=ADDRESS, extra=("--config", str(folder / "livekit.yaml"))) as running:
        yield running


@pytest.mark.parametrize("kind", ["sdk", "sdk-dual"])
async def test_clients_publish_in_the_enabled_codec_and_play_in_step(
    strict_server: ServerUnderTest, make_peer: PeerFactory, room: str, kind: str
) -> None:
    ada, linus = await make_peer("chromium", "ada"), await make_peer(kind, "linus")
    # livekit-client takes an enabled codec in the place of the one that it was told; the native SDK offers that alone.
    for peer, codec in ((ada, "vp8"), (linus, "h264")):
        await peer.join(strict_server, room)
        await peer.publish_audio()
        await peer.publish_video(codec)
    for peer, other in ((ada, "linus"), (linus, "ada")):
        await hears(peer, other)
        assert (await sees(peer, other)).details.get("mime", "video/H264") == "video/H264"
    streams = await ada.run(STREAMS)
    assert len(streams) == 2
    assert len(set(streams)) == 1
