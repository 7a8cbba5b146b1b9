// The one part of LiveKit's protocol that is never JSON: data channel messages are protobuf (livekit.DataPacket).
// Only what a chat needs: packet { kind = 1, user = 2 { payload = 2, topic = 4 }, participant_identity = 4 }.

const text = { encode: (value) => new TextEncoder().encode(value), decode: (bytes) => new TextDecoder().decode(bytes) };

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}

const field = (number, bytes) => [...varint((number << 3) | 2), ...varint(bytes.length), ...bytes];

/** A reliable DataPacket that carries `payload` (Uint8Array) under `topic`. */
export function encodeUserPacket(payload, topic) {
  return new Uint8Array(field(2, [...field(2, payload), ...field(4, text.encode(topic))]));
}

/** Splits one protobuf message into {field number: last value}; values are numbers or Uint8Arrays. */
function fields(bytes) {
  const found = {};
  let at = 0;
  const number = () => {
    let value = 0;
    for (let scale = 1; at < bytes.length; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new RangeError("truncated number");
  };
  while (at < bytes.length) {
    const key = number();
    const kind = key & 7;
    const id = Math.floor(key / 8);
    if (kind === 0) found[id] = number();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const size = number();
      if (at + size > bytes.length) throw new RangeError("truncated field");
      found[id] = bytes.subarray(at, at + size);
      at += size;
    } else throw new RangeError(`wire type ${kind}`);
  }
  return found;
}

/** {payload, topic, identity} of a user packet, or null for any other kind of packet. */
export function decodeUserPacket(buffer) {
  const packet = fields(new Uint8Array(buffer));
  if (!(packet[2] instanceof Uint8Array)) return null;
  const user = fields(packet[2]);
  const string = (bytes) => (bytes instanceof Uint8Array ? text.decode(bytes) : "");
  return { payload: user[2] ?? new Uint8Array(), topic: string(user[4]), identity: string(packet[4]) || string(user[5]) };
}
