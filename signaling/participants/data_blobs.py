"""What a participant stores for others to read, under keys: LiveKit's data blobs. It ends with the participant."""

from livekit.protocol.models import DataBlob, DataBlobKey
from livekit.protocol.rtc import RequestResponse

from signaling.errors import RequestRefused
from signaling.limits import MAX_DATA_BLOBS
from signaling.rooms.node import Node


class DataBlobs:
    """The blobs of one participant."""

    def __init__(self, node: Node) -> None:
        """`node` has the operator's limits."""
        self._node = node
        self._blobs: dict[bytes, bytes] = {}
        """Key, as protobuf -> the contents."""
        self._bytes = 0
        """Bytes of keys and contents."""

    def store(self, blob: DataBlob) -> None:
        """Store a blob, in the place of one with the same key.

        Raises:
            RequestRefused: NOT_ALLOWED: the operator did not enable it; INVALID_REQUEST; LIMIT_EXCEEDED.
        """
        limits, key = self._node.config.limits, _packed(blob.key)
        if not self._node.config.data_blobs:
            raise RequestRefused(RequestResponse.NOT_ALLOWED, "data blob not enabled")
        if not 0 < len(key) <= limits.blob_key_bytes:
            raise RequestRefused(RequestResponse.INVALID_REQUEST, "data blob is invalid")
        if not limits.hold_encoding(blob.key.schema_id.encoding):
            text = "encoding identifier is empty or exceeds the maximum length"
            raise RequestRefused(RequestResponse.INVALID_REQUEST, text)
        if not blob.contents:
            raise RequestRefused(RequestResponse.INVALID_REQUEST, "data blob is empty")
        before = self._blobs.get(key)
        size = self._bytes + len(key) + len(blob.contents)
        size -= len(key) + len(before) if before is not None else 0
        if size > limits.blobs_bytes or (before is None and len(self._blobs) >= MAX_DATA_BLOBS):
            raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, "data blobs exceed the limit")
        self._bytes = size
        self._blobs[key] = blob.contents

    def get(self, key: DataBlobKey) -> DataBlob:
        """Return the blob with this key.

        Raises:
            RequestRefused: INVALID_REQUEST: it is no key; NOT_FOUND.
        """
        packed = _packed(key)
        if not packed:
            raise RequestRefused(RequestResponse.INVALID_REQUEST, "data blob key is required")
        found = self._blobs.get(packed)
        if found is None:
            raise RequestRefused(RequestResponse.NOT_FOUND, "data blob not found")
        return DataBlob(key=DataBlobKey.FromString(packed), contents=found)


def _packed(key: DataBlobKey) -> bytes:
    """Return a key as bytes, the same ones for the same key. Fields that are unknown here are left out."""
    known = DataBlobKey()
    known.CopyFrom(key)
    known.DiscardUnknownFields()
    return known.SerializeToString(deterministic=True)
