// What the page of bench/network/chromium.py does: join, show what comes, and tell about it when asked.
"use strict";

const pictures = [];
const room = new LivekitClient.Room({ adaptiveStream: false, dynacast: false });

// The time in a picture, as bench/network/picture.py writes it; null: it cannot be read.
function readTime(video, canvas, { width, blocks, block, checkBits }) {
  const scale = video.videoWidth / width;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(video, 0, 0, blocks * block * scale, block * scale, 0, 0, blocks * 4, 4);
  const pixels = context.getImageData(0, 0, blocks * 4, 4).data;
  let code = 0;
  for (let place = 0; place < blocks; place++) code = code * 2 + (pixels[4 * (blocks * 4 + place * 4 + 1)] > 128);
  const time = Math.floor(code / (1 << checkBits));
  let check = 0;
  for (let rest = time; rest > 0; rest = Math.floor(rest / (1 << checkBits))) check ^= rest % (1 << checkBits);
  return (check ^ 0b1010) === code % (1 << checkBits) ? time : null;
}

function show(track, code) {
  const element = track.attach();
  document.body.append(element);
  if (track.kind !== "video") return;
  const canvas = new OffscreenCanvas(code.blocks * 4, 4);
  const each = (now, frame) => {
    pictures.push([now, frame.height, readTime(element, canvas, code)]);
    element.requestVideoFrameCallback(each);
  };
  element.requestVideoFrameCallback(each);
}

async function join(url, token, code) {
  room.on("trackSubscribed", (track) => show(track, code));
  await room.connect(url, token);
}

async function collect() {
  const streams = {};
  const transports = [room.engine.pcManager?.subscriber, room.engine.pcManager?.publisher];
  for (const transport of transports) {
    const stats = await transport?.getStats();
    for (const each of stats?.values() ?? []) if (each.type === "inbound-rtp") streams[each.kind] = each;
  }
  return { now: performance.now(), streams, pictures: pictures.splice(0) };
}
