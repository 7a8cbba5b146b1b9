// What the tests ask a browser to do, on top of the unmodified livekit-client (global LivekitClient).
// One page can hold several peers: peers[name]. Everything returned is plain JSON.

const LK = LivekitClient;
const peers = {};
// what an event carries, as plain JSON: participants by identity, publications and tracks by sid
const describe = (value) => (typeof value === "object" ? value?.identity ?? value?.trackSid ?? value?.sid ?? "" : value);
const codecName = (mime) => (mime ?? "").split("/")[1]?.toUpperCase() ?? "";

class Peer {
  constructor({ passphrase, ...options }) {
    if (passphrase) {
      this.keys = new LK.ExternalE2EEKeyProvider();
      this.passphrase = passphrase;
      options.e2ee = { keyProvider: this.keys, worker: new Worker("node_modules/livekit-client/dist/livekit-client.e2ee.worker.js") };
    }
    this.room = new LK.Room(options);
    this.messages = [];
    this.files = [];
    this.events = [];
    this.speakers = [];
    const note = (kind) => (...rest) => this.events.push([kind, ...rest.map(describe)]);
    this.room
      .on(LK.RoomEvent.TrackSubscribed, (track) => this.attach(track))
      .on(LK.RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((element) => element.remove()))
      .on(LK.RoomEvent.DataReceived, (payload, participant, kind, topic) =>
        this.messages.push({ text: new TextDecoder().decode(payload), from: participant?.identity ?? "", topic: topic ?? "", kind }))
      .on(LK.RoomEvent.ChatMessage, (message, participant) => {
        if (!participant?.isLocal) this.messages.push({ text: message.message, from: participant?.identity ?? "", topic: "", kind: "chat" });
      })
      .on(LK.RoomEvent.ActiveSpeakersChanged, (speakers) => (this.speakers = speakers.map(({ identity }) => identity)));
    for (const kind of ["Reconnecting", "SignalReconnecting", "Reconnected", "Disconnected", "TrackSubscriptionFailed", "TrackUnpublished", "TrackMuted", "TrackUnmuted", "MediaDevicesError",
      "ParticipantConnected", "ParticipantDisconnected", "ParticipantNameChanged", "ParticipantMetadataChanged", "ParticipantAttributesChanged", "TrackPublished", "TrackUnsubscribed",
      "TrackSubscriptionPermissionChanged", "ConnectionQualityChanged", "ParticipantPermissionsChanged"])
      this.room.on(LK.RoomEvent[kind], note(kind));
  }

  attach(track) {
    const element = track.attach();
    element.volume = 0.01; // a muted element would not be played out, and then no energy is counted
    element.style.cssText = "width:320px;height:180px";
    document.body.append(element);
  }

  async join(url, token, options) {
    await this.keys?.setKey(this.passphrase);
    if (this.keys) await this.room.setE2EEEnabled(true);
    await this.room.connect(url, token, { autoSubscribe: true, ...options });
    this.room.registerTextStreamHandler?.("lk.chat", async (reader, { identity }) =>
      this.messages.push({ text: await reader.readAll(), from: identity, topic: "lk.chat", kind: "stream" }));
    this.room.registerByteStreamHandler?.("files", async (reader, { identity }) => {
      const bytes = new Uint8Array(await new Blob(await reader.readAll()).arrayBuffer());
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
      this.files.push({ name: reader.info.name, from: identity, mime: reader.info.mimeType, size: bytes.length, sha256: [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") });
    });
    this.room.registerRpcMethod?.("greet", async ({ payload, callerIdentity }) => `hello ${callerIdentity}: ${payload}`);
    return this.room.localParticipant.sid;
  }

  async publishAudio(options = {}) {
    // the browsers' fake microphones beep; an AudioContext would wait for ever on a machine without a sound card
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    const published = await this.room.localParticipant.publishTrack(stream.getAudioTracks()[0], { source: LK.Track.Source.Microphone, ...options });
    return published.trackSid;
  }

  /** A tone without a pause, without a microphone and without an AudioContext (Chromium only). */
  async publishTone(options = {}) {
    const [rate, length] = [48000, 480];
    const track = new MediaStreamTrackGenerator({ kind: "audio" });
    const writer = track.writable.getWriter();
    let position = 0;
    const started = performance.now();
    const play = () => {
      for (; position / rate < (performance.now() - started) / 1000; position += length) {
        const data = Float32Array.from({ length }, (_, i) => 0.4 * Math.sin((2 * Math.PI * 440 * (position + i)) / rate));
        writer.write(new AudioData({ format: "f32-planar", sampleRate: rate, numberOfFrames: length, numberOfChannels: 1, timestamp: (position / rate) * 1e6, data }));
      }
    };
    this.playing = setInterval(play, 10);
    const published = await this.room.localParticipant.publishTrack(track, { source: LK.Track.Source.Microphone, ...options });
    return published.trackSid;
  }

  /** A moving picture from a canvas: the same in every browser, at the size asked for. */
  async publishVideo({ width = 640, height = 360, fps = 15, ...options } = {}) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    let frame = 0;
    const draw = () => {
      frame += 1;
      context.fillStyle = `hsl(${frame % 360} 60% 40%)`;
      context.fillRect(0, 0, width, height);
      context.fillStyle = "#fff";
      context.font = `${height / 4}px sans-serif`;
      context.fillText(String(frame), width / 10 + (frame % 50), height / 2);
    };
    draw();
    this.drawing = setInterval(draw, 1000 / fps);
    const [track] = canvas.captureStream(fps).getVideoTracks();
    const published = await this.room.localParticipant.publishTrack(track, { source: LK.Track.Source.Camera, ...options });
    return published.trackSid;
  }

  say(text, options = {}) {
    return this.room.localParticipant.publishData(new TextEncoder().encode(text), { reliable: true, ...options });
  }

  publication(identity, source) {
    return this.room.getParticipantByIdentity(identity)?.getTrackPublication(source);
  }

  async receiverReport(track) {
    const stats = await track?.receiver?.getStats();
    if (!stats) return {};
    const reports = [...stats.values()];
    const inbound = reports.find(({ type }) => type === "inbound-rtp") ?? {};
    return { ...inbound, codec: codecName(stats.get(inbound.codecId)?.mimeType) };
  }

  /** {identity: {source: {codec, packets, frames, width, height, freezes, energy, muted}}} of what arrives. */
  async received() {
    const seen = {};
    for (const participant of this.room.remoteParticipants.values()) {
      seen[participant.identity] = {};
      for (const publication of participant.trackPublications.values()) {
        const report = await this.receiverReport(publication.track);
        seen[participant.identity][publication.source] = {
          sid: publication.trackSid, subscribed: publication.isSubscribed, muted: publication.isMuted, mime: publication.mimeType ?? "",
          codec: report.codec ?? "", packets: report.packetsReceived ?? 0, lost: report.packetsLost ?? 0, bytes: report.bytesReceived ?? 0,
          frames: report.framesDecoded ?? 0, width: report.frameWidth ?? 0, height: report.frameHeight ?? 0, keyFrames: report.keyFramesDecoded ?? 0,
          freezes: report.freezeCount ?? 0, nacks: report.nackCount ?? 0, plis: report.pliCount ?? 0, energy: report.totalAudioEnergy ?? 0,
          decoder: report.decoderImplementation ?? "", ssrc: report.ssrc ?? 0,
        };
      }
    }
    return seen;
  }

  /** Outbound encodings of our own video: [{rid, codec, packets, width, height, active, scalabilityMode}]. */
  async sent() {
    const rows = [];
    for (const publication of this.room.localParticipant.trackPublications.values()) {
      const senders = [publication.track?.sender, ...[...(publication.track?.simulcastCodecs?.values() ?? [])].map(({ sender }) => sender)];
      for (const sender of senders.filter(Boolean)) {
        const stats = await sender.getStats();
        for (const report of stats.values()) {
          if (report.type !== "outbound-rtp") continue;
          rows.push({ source: publication.source, rid: report.rid ?? "", codec: codecName(stats.get(report.codecId)?.mimeType), packets: report.packetsSent, width: report.frameWidth ?? 0,
            height: report.frameHeight ?? 0, active: report.active ?? true, mode: report.scalabilityMode ?? "", plis: report.pliCount ?? 0, nacks: report.nackCount ?? 0, target: report.targetBitrate ?? 0, limited: report.qualityLimitationReason ?? "", keyFrames: report.keyFramesEncoded ?? 0 });
        }
      }
    }
    return rows;
  }

  state() {
    return {
      connection: this.room.state, messages: this.messages, events: this.events, files: this.files, speakers: this.speakers,
      participants: [...this.room.remoteParticipants.keys()],
    };
  }

  async leave() {
    clearInterval(this.drawing);
    clearInterval(this.playing);
    await this.room.disconnect();
  }
}
