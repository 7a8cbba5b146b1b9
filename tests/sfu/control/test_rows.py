"""What the control thread writes into rows before they open."""

import pytest

from sfu.control import rows
from sfu.control.cache_space import CACHE_SHARE_BYTES, GROWING_BYTES, SHARED_BYTES, CacheSpace
from sfu.control.rows import Rows, Tables, pack_playout_delay
from sfu.errors import EngineError, TableFull
from sfu.parameters import (
    Codec,
    Encoding,
    Extension,
    IceCredentials,
    Kind,
    MediaParameters,
    PayloadType,
    PublishParameters,
    SubscribeParameters,
)
from sfu.schema.capacities import (
    ARENA_BYTES,
    CACHE_BYTES,
    MAX_CACHE_BYTES,
    MIN_CACHE_BYTES,
    PATH_SLOTS,
    PATHS,
    PATHS_PER_TRANSPORT,
    SCRATCH_HISTORY,
    TRANSPORTS,
)
from sfu.schema.codes import MediaKind
from sfu.schema.memory import Memory

ICE = IceCredentials("abcdEFGH", "0123456789abcdefghijklmn")
SIMULCAST = PublishParameters(Kind.VIDEO, "4", (Encoding("q"), Encoding("h"), Encoding("f", 7, 8)))


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def tables(memory: Memory) -> Tables:
    return Tables(memory)


def test_lowest_free_row_goes_first() -> None:
    table = Rows("things", 10)
    assert [table.take() for _ in range(4)] == [0, 1, 2, 3]
    for row in (2, 0, 1):
        table.give_back(row)
    assert [table.take() for _ in range(4)] == [0, 1, 2, 4]
    assert table.used == 5


def test_full_table_says_its_name() -> None:
    table = Rows("things", 1)
    table.take()
    with pytest.raises(TableFull, match="things"):
        table.take()


def test_transport_row_holds_credentials_as_the_kernel_compares_them(memory: Memory, tables: Tables) -> None:
    row, generation = tables.take_transport(ICE, 99)
    record = memory.table("transports")[row]
    assert record["ufrag"].tolist() == [int.from_bytes(b"abcdEFGH", "little"), 0]
    assert record["password"][0].tobytes() == ICE.password.encode()
    assert (record["ssrc"], record["generation"], generation) == (99, 1, 1)
    tables.write_credentials(row, IceCredentials("ABCDefgh", ICE.password[::-1]))
    assert record["next_ufrag"] == int.from_bytes(b"ABCDefgh", "little")
    assert record["next_password"].tobytes() == ICE.password[::-1].encode()


def test_generation_counts_uses_and_skips_zero(memory: Memory, tables: Tables) -> None:
    for expected in (1, 2, 3):
        row, generation = tables.take_transport(ICE, 1)
        assert (row, generation) == (0, expected)
        tables.transports.give_back(row)
    memory.table("transports")[0]["generation"] = rows.MAX_GENERATION
    assert tables.take_transport(ICE, 1) == (0, 1)


def test_media_row_is_written_whole(memory: Memory, tables: Tables) -> None:
    everything = {n: PayloadType(Codec.VP8, 90_000, 5, True) for n in range(128)}
    tables.write_media(5, MediaParameters(everything, dict.fromkeys(range(1, 256), Extension.MID), True))
    media = MediaParameters(
        {96: PayloadType(Codec.VP8, 90_000, nack=True), 97: PayloadType(Codec.RTX, 90_000, 96)},
        {3: Extension.MID, 200: Extension.DEPENDENCY},
    )
    tables.write_media(5, media)
    record = memory.table("media")[5]
    assert {int(n): int(record["codec_of_pt"][n]) for n in record["codec_of_pt"].nonzero()[0]} == {96: 3, 97: 7}
    assert (record["associated_pt"][97], record["associated_pt"][96]) == (96, -1)
    assert record["nack_of_pt"].nonzero()[0].tolist() == [96]
    assert record["clock_of_pt"][97] == 90_000
    assert record["extension_of_id"].nonzero()[0].tolist() == [3, 200]
    assert record["id_of_extension"][Extension.DEPENDENCY] == 200
    assert record["mixed_extensions"] == 0


@pytest.mark.parametrize(
    "media",
    [
        MediaParameters({128: PayloadType(Codec.VP8, 90_000)}),
        MediaParameters({96: PayloadType(Codec.RTX, 90_000, 128)}),
        MediaParameters({96: PayloadType(Codec.VP8, 1 << 32)}),
        MediaParameters(extensions={0: Extension.MID}),
        MediaParameters(extensions={256: Extension.MID}),
    ],
)
def test_media_numbers_out_of_range_are_refused(tables: Tables, media: MediaParameters) -> None:
    with pytest.raises(EngineError, match="out of range"):
        tables.write_media(0, media)


def test_track_row_names_its_streams_and_they_name_it(memory: Memory, tables: Tables) -> None:
    row, _, streams = tables.take_track(17, SIMULCAST)
    track = memory.table("tracks")[row]
    assert (track["kind"], track["layer_count"], track["transport"]) == (MediaKind.VIDEO, 3, 17)
    assert track["mid"].tobytes().rstrip(b"\0") == b"4"
    assert track["streams"].tolist() == [stream.row for stream in streams]
    records = [memory.table("streams")[stream.row] for stream in streams]
    assert [record["rid"].tobytes()[: record["rid_bytes"]] for record in records] == [b"q", b"h", b"f"]
    assert [(int(record["ssrc"]), int(record["rtx_ssrc"])) for record in records] == [(0, 0), (0, 0), (7, 8)]
    assert {(int(record["track"]), int(record["transport"])) for record in records} == {(row, 17)}
    assert [int(record["cache_bytes"]) for record in records] == [CACHE_BYTES[name] for name in ("low", "mid", "high")]
    assert len({int(record["cache_start"]) for record in records}) == 3


def test_reused_stream_row_forgets_the_rid_and_ssrc_before(memory: Memory, tables: Tables) -> None:
    row, _, streams = tables.take_track(0, SIMULCAST)
    tables.give_back_track(row, streams)
    again, generation, (stream,) = tables.take_track(0, PublishParameters(Kind.AUDIO, "", (Encoding(),)))
    assert (again, generation) == (row, 2)
    record = memory.table("streams")[stream.row]
    assert not record["rid"].any()
    assert (record["rid_bytes"], record["kind"]) == (0, MediaKind.AUDIO)
    assert memory.table("tracks")[row]["streams"].tolist() == [stream.row, -1, -1]


def test_caches_come_back(tables: Tables) -> None:
    for _ in range(2 * ARENA_BYTES // sum(CACHE_BYTES[name] for name in ("low", "mid", "high"))):
        row, _, streams = tables.take_track(0, SIMULCAST)
        tables.give_back_track(row, streams)
    assert tables.caches.used_bytes == tables.tracks.used == tables.streams.used == 0


def test_full_arena_gives_back_what_was_taken(tables: Tables) -> None:
    def take_all() -> None:
        while True:
            tables.take_track(0, SIMULCAST)

    with pytest.raises(TableFull):
        take_all()
    assert tables.streams.used == 3 * tables.tracks.used


@pytest.mark.parametrize(
    "parameters",
    [
        PublishParameters(Kind.AUDIO, "m" * 17, (Encoding(),)),
        PublishParameters(Kind.AUDIO, "é", (Encoding(),)),
        PublishParameters(Kind.AUDIO, "1", (Encoding("r" * 17),)),
        PublishParameters(Kind.AUDIO, "1", ()),
        PublishParameters(Kind.VIDEO, "1", (Encoding(),) * 4),
    ],
)
def test_track_parameters_out_of_range_take_no_row(tables: Tables, parameters: PublishParameters) -> None:
    with pytest.raises(EngineError):
        tables.take_track(0, parameters)
    assert tables.tracks.used == tables.streams.used == 0


def test_tracks_of_one_transport_have_one_owner(memory: Memory, tables: Tables) -> None:
    rows = [
        tables.take_track(transport, PublishParameters(Kind.AUDIO, "1", (Encoding(),)))[0] for transport in (0, 0, 5)
    ]
    first, second, third = (int(memory.table("tracks")[row]["owner"]) for row in rows)
    assert first == second != third
    assert 0 not in (first, third)


def test_subscription_row_is_written_whole(memory: Memory, tables: Tables) -> None:
    parameters = SubscribeParameters("mid7", 96, 97, -1, "somebody")
    row, generation = tables.take_subscription(3, 4, Kind.VIDEO, (10, 11), parameters)
    record = memory.table("subscriptions")[row]
    assert generation == 1
    assert [int(record[name]) for name in ("kind", "track", "transport", "ssrc", "rtx_ssrc")] == [
        MediaKind.VIDEO,
        3,
        4,
        10,
        11,
    ]
    numbers = [int(record[name]) for name in ("payload_type", "rtx_payload_type", "red_payload_type")]
    assert numbers == [96, 97, -1]
    assert record["mid"].tobytes()[: record["mid_bytes"]] == b"mid7"
    assert record["cname"].tobytes()[: record["cname_bytes"]] == b"somebody"


@pytest.mark.parametrize(
    ("milliseconds", "least", "most"),
    [
        ((120, 2_000), 12, 200),
        ((0, 1), 0, 1),
        ((0, 9), 0, 1),
        ((4, 14), 0, 1),
        ((5, 15), 1, 2),
        ((0, 0), 0, 1),
        ((300, 200), 20, 20),
        ((0, 1_000_000), 0, 4_095),
    ],
)
def test_a_playout_delay_is_rounded_to_units_and_its_most_never_to_none(
    milliseconds: tuple[int, int], least: int, most: int
) -> None:
    assert pack_playout_delay(milliseconds) == least << 12 | most


def test_a_playout_delay_that_cannot_be_is_refused() -> None:
    assert pack_playout_delay(None) == 0
    for milliseconds in ((-1, 100), (0, -1)):
        with pytest.raises(EngineError):
            pack_playout_delay(milliseconds)


@pytest.mark.parametrize(
    "parameters",
    [
        SubscribeParameters("1", 128),
        SubscribeParameters("1", -1),
        SubscribeParameters("1", 96, 128),
        SubscribeParameters("1", 96, red_payload_type=-2),
        SubscribeParameters("1", 96, cname="c" * 33),
        SubscribeParameters("1" * 17, 96),
    ],
)
def test_subscription_parameters_out_of_range_take_no_row(tables: Tables, parameters: SubscribeParameters) -> None:
    with pytest.raises(EngineError):
        tables.take_subscription(0, 0, Kind.VIDEO, (1, 2), parameters)
    assert tables.subscriptions.used == 0


def test_only_what_can_be_sent_again_is_remembered(memory: Memory, tables: Tables) -> None:
    table = memory.table("subscriptions")
    rows = [
        tables.take_subscription(3, 4, Kind.VIDEO, (10, rtx), SubscribeParameters("1", 96))[0] for rtx in (11, 0, 12)
    ]
    assert [int(table[row]["history"]) for row in rows] == [0, SCRATCH_HISTORY, 1]
    assert len({int(table[row]["history_use"]) for row in rows}) == 3
    for row in rows:
        tables.give_back_subscription(row)
    again, _ = tables.take_subscription(3, 4, Kind.VIDEO, (10, 11), SubscribeParameters("1", 96))
    assert (int(table[again]["history"]), int(table[again]["history_use"])) == (0, 4)


def test_a_full_arena_is_cut_into_smaller_caches() -> None:
    space = CacheSpace()
    large = []
    while (start := space.take(MAX_CACHE_BYTES)) >= 0:
        large.append(start)
    assert space.take(MIN_CACHE_BYTES) == -1
    space.give_back(large.pop(), MAX_CACHE_BYTES)
    small = [space.take(MIN_CACHE_BYTES) for _ in range(MAX_CACHE_BYTES // MIN_CACHE_BYTES)]
    assert len(set(small)) == len(small)
    assert space.take(MIN_CACHE_BYTES) == -1
    assert space.used_bytes == ARENA_BYTES


def test_small_caches_that_come_back_are_joined_into_large_ones() -> None:
    space = CacheSpace()
    small = [space.take(CACHE_BYTES["audio"]) for _ in range(ARENA_BYTES // CACHE_BYTES["audio"])]
    assert space.take(MIN_CACHE_BYTES) == -1
    for start in small[::2] + small[1::2]:
        space.give_back(start, CACHE_BYTES["audio"])
    large = [space.take(MAX_CACHE_BYTES) for _ in range(ARENA_BYTES // MAX_CACHE_BYTES)]
    assert sorted(large) == list(range(0, ARENA_BYTES, MAX_CACHE_BYTES))


def test_caches_that_grow_leave_space_for_tracks_that_begin(tables: Tables) -> None:
    def grow_all(transport: int, tracks: int) -> int:
        """Publish and let each layer ask for the largest cache; returns the bytes that the transport has then."""
        streams = [each for _ in range(tracks) for each in tables.take_track(transport, SIMULCAST)[2]]
        for stream in streams:
            if tables.change_cache(stream, MAX_CACHE_BYTES, sum(each.cache_bytes for each in streams)):
                tables.cache_left(stream)
        return sum(each.cache_bytes for each in streams)

    assert SHARED_BYTES - 2 * MAX_CACHE_BYTES < grow_all(0, 100) <= SHARED_BYTES
    assert CACHE_SHARE_BYTES - MAX_CACHE_BYTES < grow_all(1, 20) <= CACHE_SHARE_BYTES, "others still have a share"
    others = [grow_all(transport, 4) for transport in range(2, 40)]
    assert max(others) <= CACHE_SHARE_BYTES
    assert tables.caches.used_bytes <= GROWING_BYTES + 40 * 12 * CACHE_BYTES["high"]
    _, _, streams = tables.take_track(50, SIMULCAST)
    assert not tables.change_cache(streams[0], MAX_CACHE_BYTES, 0)
    assert tables.change_cache(streams[2], MIN_CACHE_BYTES, 0), "smaller ones are always given"


def test_every_transport_can_have_all_of_its_paths() -> None:
    assert TRANSPORTS * PATHS_PER_TRANSPORT < PATHS  # and one row for staging
    assert PATH_SLOTS & (PATH_SLOTS - 1) == 0


@pytest.mark.parametrize("encoding", [Encoding(ssrc=1 << 32), Encoding(ssrc=-1), Encoding(rtx_ssrc=1 << 32)])
def test_an_ssrc_out_of_range_takes_no_row(encoding: Encoding) -> None:
    tables = Tables(Memory())
    with pytest.raises(EngineError, match="SSRC"):
        tables.take_track(0, PublishParameters(Kind.VIDEO, "1", (Encoding(ssrc=1), encoding)))
    assert (tables.tracks.used, tables.streams.used, tables.caches.used_bytes) == (0, 0, 0)
