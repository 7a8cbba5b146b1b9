// One call: a single peer connection on which only we make offers (LiveKit's path /rtc/v1).
// Knows participants and tracks; shows nothing. Tells the page by events: "change", "track", "speakers", "chat", "state", "left".

import { decodeUserPacket, encodeUserPacket } from "./packets.js";
import { Signal } from "./signal.js";

const CHAT_TOPIC = "lk-chat-topic";
const RETRY_MS = [0, 300, 1200, 2700, 4800, 7000, 7000, 7000];
const CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
const CAMERA_LAYERS = [
  { rid: "q", quality: "LOW", scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { rid: "h", quality: "MEDIUM", scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: "f", quality: "HIGH", scaleResolutionDownBy: 1, maxBitrate: 1_700_000 },
];
const SCREEN_LAYERS = [{ quality: "HIGH", scaleResolutionDownBy: 1, maxBitrate: 2_500_000 }];

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Call extends EventTarget {
  signal = new Signal();
  /** sid -> ParticipantInfo, ourselves included */
  participants = new Map();
  /** track sid -> {track: MediaStreamTrack, receiver} as received */
  remote = new Map();
  /** sid of a participant -> how the server judges its connection: "EXCELLENT", "GOOD", "POOR" or "LOST" */
  qualities = new Map();
  /** source -> {sid, track, transceiver} as published by us */
  local = new Map();
  me = null;
  room = null;

  #token = "";
  #pc = null;
  #channels = {};
  #offerId = 0;
  #answered = null;
  #again = false;
  #midToTrack = {};
  #granted = new Map(); // cid -> resolve of the track_published answer
  #over = false;

  /** Joins; rejects with a readable Error. */
  async join(token) {
    this.#token = token;
    this.#listen();
    const { join } = await this.signal.open(token);
    if (!join) throw new Error("the server has no room for this call");
    await this.#enter(join);
  }

  /** Takes a join response: who is here, and a new peer connection. */
  async #enter(join) {
    this.me = join.participant;
    this.room = join.room;
    this.participants.clear();
    this.remote.clear();
    this.qualities.clear();
    this.participants.set(this.me.sid, this.me);
    for (const other of join.otherParticipants ?? []) this.participants.set(other.sid, other);
    this.#openPeerConnection(join.iceServers ?? []);
    await this.#negotiate();
    this.#emit("change");
  }

  leave() {
    this.#over = true;
    this.signal.send({ leave: { reason: "CLIENT_INITIATED" } });
    this.#end("");
  }

  // --- what the user does -------------------------------------------------------------------------------------------
  /** Turns microphone, camera or screen on or off. Rejects with a readable Error when the device is refused. */
  async toggle(source) {
    const published = this.local.get(source);
    if (!published) return this.#publish(source);
    if (source === "SCREEN_SHARE") return this.#unpublish(source);
    const muted = published.track.enabled;
    if (source === "CAMERA") await this.#switchCamera(published, muted);
    published.track.enabled = !muted;
    this.signal.send({ mute: { sid: published.sid, muted } });
    this.#emit("change");
    return undefined;
  }

  isOn(source) {
    return Boolean(this.local.get(source)?.track.enabled);
  }

  /** Asks for a quality: "LOW", "MEDIUM", "HIGH", or a size in pixels for "auto". */
  setQuality(trackSid, quality, width, height) {
    const setting = { trackSids: [trackSid], disabled: false };
    Object.assign(setting, quality === "auto" ? { width: Math.round(width), height: Math.round(height) } : { quality });
    this.signal.send({ trackSetting: setting });
  }

  sendChat(message) {
    const payload = new TextEncoder().encode(JSON.stringify({ id: crypto.randomUUID?.() ?? String(Math.random()), timestamp: Date.now(), message }));
    const channel = this.#channels._reliable;
    if (channel?.readyState !== "open") throw new Error("the data channel is not open yet");
    channel.send(encodeUserPacket(payload, CHAT_TOPIC));
  }

  /** {width, height, bitrate} really received for a track since the last call, or null. */
  async received(trackSid) {
    const entry = this.remote.get(trackSid);
    if (!entry) return null;
    for (const report of (await entry.receiver.getStats()).values()) {
      if (report.type !== "inbound-rtp") continue;
      const [bytes, at] = entry.last ?? [report.bytesReceived, report.timestamp];
      entry.last = [report.bytesReceived, report.timestamp];
      const bitrate = report.timestamp > at ? (8000 * (report.bytesReceived - bytes)) / (report.timestamp - at) : 0;
      return { width: report.frameWidth ?? 0, height: report.frameHeight ?? 0, bitrate };
    }
    return null;
  }

  /** track sid -> what the server says of what it sends us (docs/protocol.md, "Statistics of a room"); empty if nothing. */
  async subscriptions() {
    const headers = { Authorization: `Bearer ${this.#token}` };
    const answer = await fetch(`/statistics/${encodeURIComponent(this.room.name)}`, { headers }).catch(() => null);
    const { participants = [] } = answer?.ok ? await answer.json() : {};
    const me = participants.find(({ sid }) => sid === this.me.sid);
    return new Map((me?.subscriptions ?? []).map((each) => [each.track_sid, each]));
  }

  // --- publishing ---------------------------------------------------------------------------------------------------
  async #publish(source) {
    await this.#send(source, await this.#capture(source));
    await this.#negotiate();
    this.#emit("change");
  }

  /** Announces a track and puts it on the connection; the next offer publishes it. */
  async #send(source, track) {
    const kind = track.kind;
    const { width = 1280, height = 720 } = track.getSettings();
    const layers = source === "SCREEN_SHARE" ? SCREEN_LAYERS : CAMERA_LAYERS;
    const request = { cid: track.id, type: kind.toUpperCase(), source, name: source.toLowerCase(), muted: !track.enabled };
    if (kind === "video") {
      request.width = width;
      request.height = height;
      request.layers = layers.map(({ quality, scaleResolutionDownBy: by, maxBitrate }) => ({ quality, width: Math.round(width / by), height: Math.round(height / by), bitrate: maxBitrate }));
      request.simulcastCodecs = [{ codec: "vp8", cid: track.id }];
    }
    const info = await this.#requestTrack(request);
    const sendEncodings = kind === "video" ? layers.map(({ quality, ...encoding }) => encoding) : undefined;
    const transceiver = this.#pc.addTransceiver(track, { direction: "sendonly", ...(sendEncodings && { sendEncodings }) });
    this.local.set(source, { sid: info.sid, track, transceiver });
    if (source === "SCREEN_SHARE") track.onended = () => this.local.get(source)?.track === track && this.#unpublish(source);
  }

  async #capture(source) {
    if (!navigator.mediaDevices) throw new Error("Browsers give camera and microphone to pages from https or localhost only.");
    try {
      if (source === "SCREEN_SHARE") return (await navigator.mediaDevices.getDisplayMedia({ video: true })).getVideoTracks()[0];
      const wanted = source === "CAMERA" ? { video: CAMERA } : { audio: true };
      return (await navigator.mediaDevices.getUserMedia(wanted)).getTracks()[0];
    } catch (error) {
      throw new Error(refusal(source, error));
    }
  }

  #requestTrack(request) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("the server did not accept the track")), 10_000);
      this.#granted.set(request.cid, (info) => (clearTimeout(timer), resolve(info)));
      this.signal.send({ addTrack: request });
    });
  }

  async #unpublish(source) {
    const { track, transceiver } = this.local.get(source);
    this.local.delete(source);
    track.stop();
    await transceiver.sender.replaceTrack(null);
    transceiver.direction = "inactive";
    await this.#negotiate();
    this.#emit("change");
  }

  /** A camera that is off is really off: its light goes out, and comes back with a new capture. */
  async #switchCamera(published, off) {
    if (off) {
      published.track.stop();
      return;
    }
    published.track = await this.#capture("CAMERA");
    await published.transceiver.sender.replaceTrack(published.track);
    published.track.enabled = false; // toggle() turns it on
  }

  // --- the peer connection ------------------------------------------------------------------------------------------
  #openPeerConnection(iceServers) {
    const pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.#pc?.close();
    this.#pc = pc;
    this.#forgetOffer();
    for (const [label, options] of [["_reliable", { ordered: true }], ["_lossy", { ordered: false, maxRetransmits: 0 }]]) {
      const channel = pc.createDataChannel(label, options);
      channel.binaryType = "arraybuffer";
      channel.onmessage = ({ data }) => this.#receivedData(data);
      this.#channels[label] = channel;
    }
    pc.onicecandidate = ({ candidate }) => candidate && this.signal.send({ trickle: { candidateInit: JSON.stringify(candidate), target: "PUBLISHER" } });
    pc.ontrack = ({ track, receiver, transceiver, streams }) => this.#receivedTrack(track, receiver, transceiver, streams);
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === "failed") this.#resume();
      this.#emit("state", pc.connectionState);
    };
  }

  /** Offers what we have; at most one offer is on its way, and a change meanwhile makes one more. */
  async #negotiate(restart = false) {
    if (this.#answered) {
      this.#again = true;
      return this.#answered.promise;
    }
    let done;
    this.#answered = { id: ++this.#offerId, promise: new Promise((resolve) => (done = resolve)) };
    this.#answered.done = done;
    const { promise } = this.#answered;
    await this.#pc.setLocalDescription(await this.#pc.createOffer({ iceRestart: restart }));
    const { type, sdp } = this.#pc.localDescription;
    this.signal.send({ offer: { type, sdp, id: this.#offerId } });
    return promise;
  }

  /** An offer that went out on a lost connection will not be answered; the next one says the same and more. */
  #forgetOffer() {
    this.#answered?.done();
    this.#answered = null;
  }

  async #receivedAnswer({ sdp, id, midToTrackId }) {
    if (!this.#answered || (id && id !== this.#answered.id)) return;
    this.#midToTrack = midToTrackId ?? {};
    await this.#pc.setRemoteDescription({ type: "answer", sdp });
    const { done } = this.#answered;
    this.#answered = null;
    done();
    if (this.#again) {
      this.#again = false;
      await this.#negotiate();
    }
  }

  #receivedTrack(track, receiver, transceiver, streams) {
    const fromStream = streams[0]?.id.split("|").find((part) => part.startsWith("TR_"));
    const sid = fromStream ?? this.#midToTrack[transceiver.mid];
    if (!sid) return;
    this.remote.set(sid, { track, receiver, transceiver });
    this.#emit("track", { sid, track });
  }

  async #addSections({ numAudios = 0, numVideos = 0 }) {
    for (let n = 0; n < numAudios; n++) this.#pc.addTransceiver("audio", { direction: "recvonly" });
    for (let n = 0; n < numVideos; n++) this.#pc.addTransceiver("video", { direction: "recvonly" });
    await this.#negotiate();
  }

  #receivedData(buffer) {
    let packet;
    try {
      packet = decodeUserPacket(buffer);
    } catch {
      return; // not for us
    }
    if (packet?.topic !== CHAT_TOPIC) return;
    const { message } = JSON.parse(new TextDecoder().decode(packet.payload));
    const sender = [...this.participants.values()].find(({ identity }) => identity === packet.identity);
    this.#emit("chat", { name: sender?.name || packet.identity, message });
  }

  // --- signalling ---------------------------------------------------------------------------------------------------
  #listen() {
    const on = (kind, handle) => this.signal.addEventListener(kind, ({ detail }) => handle.call(this, detail));
    on("answer", this.#receivedAnswer);
    on("mediaSectionsRequirement", this.#addSections);
    on("trackPublished", ({ cid, track }) => this.#granted.get(cid)?.(track));
    on("update", this.#updated);
    on("speakersChanged", ({ speakers }) => this.#emit("speakers", speakers ?? []));
    on("connectionQuality", this.#judged);
    on("refreshToken", (token) => (this.#token = token));
    on("mute", ({ sid, muted }) => this.#mutedByServer(sid, muted));
    on("leave", this.#told);
    on("lost", () => this.#resume());
  }

  #updated({ participants = [] }) {
    for (const participant of participants) {
      if (participant.state === "DISCONNECTED") {
        this.participants.delete(participant.sid);
        this.qualities.delete(participant.sid);
      } else this.participants.set(participant.sid, participant);
    }
    const known = new Set([...this.participants.values()].flatMap(({ tracks = [] }) => tracks.map(({ sid }) => sid)));
    for (const sid of this.remote.keys()) if (!known.has(sid)) this.remote.delete(sid);
    this.#emit("change");
  }

  #judged({ updates = [] }) {
    // JSON leaves out the first value of an enumeration, which is POOR.
    for (const { participantSid, quality = "POOR" } of updates) this.qualities.set(participantSid, quality);
    this.#emit("change");
  }

  #mutedByServer(sid, muted) {
    for (const published of this.local.values()) if (published.sid === sid) published.track.enabled = !muted;
    this.#emit("change");
  }

  #told({ action, reason }) {
    if (action === "RESUME" || action === "RECONNECT") return this.#resume(action === "RECONNECT");
    return this.#end(reason === "DUPLICATE_IDENTITY" ? "You joined from somewhere else." : "The server ended the call.");
  }

  /** Gets the signalling back and restarts ICE, while media goes on; or joins anew. After the last try the call is over. */
  async #resume(anew = false) {
    if (this.#over || this.#resuming) return;
    this.#resuming = true;
    this.#emit("state", "reconnecting");
    for (const wait of RETRY_MS) {
      await sleep(wait);
      if (this.#over) return;
      try {
        const first = await this.signal.open(this.#token, { resume: anew ? "" : this.me.sid });
        if (first.leave) {
          // A stay that the server has forgotten cannot be resumed, but the room can be joined again.
          if (first.leave.action !== "RECONNECT") break;
          anew = true;
          continue;
        }
        await (first.reconnect ? this.#continue() : this.#startAgain(first.join));
        this.#resuming = false;
        this.#emit("state", "connected");
        return;
      } catch {
        continue;
      }
    }
    this.#end("The connection was lost. Please join again.");
  }

  #resuming = false;

  #continue() {
    this.#syncState();
    this.#forgetOffer();
    return this.#negotiate(true);
  }

  /** Publishes in a new stay what was published in the last one. */
  async #startAgain(join) {
    await this.#enter(join);
    for (const [source, { track }] of this.local) await this.#send(source, track);
    if (this.local.size) await this.#negotiate();
    this.#emit("change");
  }

  #syncState() {
    const publishTracks = [...this.local.values()].map(({ sid, track }) => ({ cid: track.id, track: { sid } }));
    this.signal.send({ syncState: { publishTracks, subscription: { trackSids: [], subscribe: true } } });
  }

  #end(message) {
    this.#over = true;
    this.signal.close();
    this.#pc?.close();
    for (const { track } of this.local.values()) track.stop();
    this.#emit("left", message);
  }

  #emit(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

function refusal(source, error) {
  const device = { CAMERA: "camera", MICROPHONE: "microphone", SCREEN_SHARE: "screen" }[source];
  const reasons = {
    NotAllowedError: `The browser refused access to your ${device}. Allow it in the address bar and try again.`,
    NotFoundError: `No ${device} was found on this computer.`,
    NotReadableError: `Your ${device} is in use by another program.`,
  };
  return reasons[error.name] ?? `Your ${device} could not be opened: ${error.message}`;
}
