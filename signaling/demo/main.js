// The page: a lobby, a grid of tiles, a chat. All of the protocol is in call.js.

import { Call } from "./call.js";

const $ = (id) => document.getElementById(id);
const SOURCES = { microphone: "MICROPHONE", camera: "CAMERA", screen: "SCREEN_SHARE" };
const REFRESH_MS = 1000;

let call = null;
const tiles = new Map(); // key -> {element, trackSid, quality, asked}
const audios = new Map(); // track sid -> <audio>

$("name").value = localStorage.getItem("aiosfu-name") ?? "";
const wished = new URLSearchParams(location.search);
if (wished.has("room")) $("room-name").value = wished.get("room");
if (wished.has("name")) $("name").value = wished.get("name");

$("join").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("join-button").disabled = true;
  $("join-error").hidden = true;
  try {
    await join($("room-name").value.trim(), $("name").value.trim());
  } catch (error) {
    showLobby(error.message);
  } finally {
    $("join-button").disabled = false;
  }
});

async function join(room, name) {
  localStorage.setItem("aiosfu-name", name);
  const identity = `${name}-${Math.random().toString(36).slice(2, 8)}`;
  const answer = await fetch(`/demo/token?${new URLSearchParams({ room, name, identity })}`);
  if (!answer.ok) throw new Error("This server gives no demo tokens. Start it with --dev.");
  call = new Call();
  listen(call);
  await call.join((await answer.json()).token);
  $("title").textContent = room;
  $("lobby").hidden = true;
  $("call").hidden = false;
  for (const button of ["microphone", "camera"]) if ($(`with-${button}`).checked) await toggle(button);
  render();
}

function showLobby(message) {
  call = null;
  for (const { element } of tiles.values()) element.remove();
  tiles.clear();
  for (const audio of audios.values()) audio.remove();
  audios.clear();
  $("messages").replaceChildren();
  $("call").hidden = true;
  $("lobby").hidden = false;
  $("join-error").hidden = !message;
  $("join-error").textContent = message;
}

function listen(current) {
  const on = (kind, handle) => current.addEventListener(kind, ({ detail }) => current === call && handle(detail));
  on("change", render);
  on("track", ({ sid, track }) => (track.kind === "audio" ? playAudio(sid, track) : render()));
  on("speakers", showSpeakers);
  on("chat", ({ name, message }) => showMessage(name, message));
  on("state", (state) => showConnection(state !== "reconnecting" && state !== "disconnected"));
  on("left", showLobby);
}

// --- controls -------------------------------------------------------------------------------------------------------
async function toggle(button) {
  $(button).disabled = true;
  try {
    await call.toggle(SOURCES[button]);
    showNotice("");
  } catch (error) {
    showNotice(error.message);
  } finally {
    $(button).disabled = false;
  }
}

for (const button of Object.keys(SOURCES)) $(button).addEventListener("click", () => toggle(button));
$("leave").addEventListener("click", () => call.leave());
$("chat-toggle").addEventListener("click", () => {
  $("chat").hidden = !$("chat").hidden;
  $("chat-toggle").setAttribute("aria-pressed", String(!$("chat").hidden));
  $("unread").hidden = true;
  $("unread").textContent = "";
  if (!$("chat").hidden) $("chat-input").focus();
});
$("chat-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const message = $("chat-input").value.trim();
  if (!message) return;
  try {
    call.sendChat(message);
    showMessage("You", message);
    $("chat-input").value = "";
  } catch (error) {
    showNotice(error.message);
  }
});

const LOST = "Connection lost, reconnecting…";

function showConnection(there) {
  if (!there) showNotice(LOST);
  else if ($("notice").textContent === LOST) showNotice("");
}

function showNotice(message) {
  $("notice").textContent = message;
  $("notice").hidden = !message;
}

function showMessage(name, message) {
  const item = document.createElement("li");
  const who = document.createElement("b");
  who.textContent = name;
  item.append(who, message);
  $("messages").append(item);
  item.scrollIntoView();
  if ($("chat").hidden) {
    $("unread").textContent = String(Number($("unread").textContent || 0) + 1);
    $("unread").hidden = false;
  }
}

// --- tiles ----------------------------------------------------------------------------------------------------------
/** What should be on the grid: one tile a participant, and one for each shared screen. */
function wantedTiles() {
  const wanted = [];
  for (const participant of call.participants.values()) {
    const mine = participant.sid === call.me.sid;
    const tracks = participant.tracks ?? [];
    const name = participant.name || participant.identity;
    const find = (source) => tracks.find((track) => track.source === source);
    const microphone = find("MICROPHONE");
    const silent = mine ? !call.isOn("MICROPHONE") : !microphone || Boolean(microphone.muted);
    wanted.push({ key: participant.sid, name: mine ? `${name} (you)` : name, mine, silent, screen: false, ...picture(mine, "CAMERA", find("CAMERA")) });
    const screen = find("SCREEN_SHARE");
    if (screen) wanted.push({ key: screen.sid, name: `${name}: screen`, mine, silent: false, screen: true, ...picture(mine, "SCREEN_SHARE", screen) });
  }
  return wanted;
}

function picture(mine, source, info) {
  if (mine) return { track: call.isOn(source) ? call.local.get(source).track : null, trackSid: "" };
  const live = info && !info.muted;
  return { track: live ? (call.remote.get(info.sid)?.track ?? null) : null, trackSid: info?.sid ?? "" };
}

function render() {
  if (!call) return;
  const wanted = wantedTiles();
  const keys = new Set(wanted.map(({ key }) => key));
  for (const [key, { element }] of tiles) {
    if (keys.has(key)) continue;
    element.remove();
    tiles.delete(key);
  }
  for (const tile of wanted) showTile(tile);
  const wide = innerWidth > innerHeight;
  const count = wanted.length;
  $("grid").style.setProperty("--columns", String(wide ? Math.ceil(Math.sqrt(count)) : count > 2 ? 2 : 1));
  $("count").textContent = call.participants.size === 1 ? "only you" : `${call.participants.size} participants`;
  for (const [button, source] of Object.entries(SOURCES)) $(button).setAttribute("aria-pressed", String(call.isOn(source)));
  for (const [sid, audio] of audios) {
    if (call.remote.has(sid)) continue;
    audio.remove();
    audios.delete(sid);
  }
}

function showTile({ key, name, mine, silent, screen, track, trackSid }) {
  let tile = tiles.get(key);
  if (!tile) {
    tile = { element: $("tile").content.firstElementChild.cloneNode(true), quality: "auto", asked: "" };
    tile.element.querySelector(".quality").addEventListener("change", ({ target }) => {
      tile.quality = target.value;
      askQuality(tile);
    });
    tiles.set(key, tile);
    $("grid").append(tile.element);
  }
  tile.trackSid = trackSid;
  const { element } = tile;
  element.dataset.participant = key;
  element.classList.toggle("mine", mine);
  element.classList.toggle("screen", screen);
  element.classList.toggle("muted", silent);
  element.classList.toggle("has-video", Boolean(track));
  element.querySelector(".who").textContent = name;
  element.querySelector(".avatar").textContent = name.trim().slice(0, 1).toUpperCase();
  const video = element.querySelector("video");
  if (video.srcObject?.getTracks()[0] !== track) video.srcObject = track ? new MediaStream([track]) : null;
}

/** Sends the quality once for each change; "auto" asks for what the tile can show. */
function askQuality(tile) {
  if (!tile.trackSid) return;
  const { width, height } = tile.element.getBoundingClientRect();
  const [w, h] = [width * devicePixelRatio, height * devicePixelRatio].map((size) => 32 * Math.ceil(size / 32));
  const asked = `${tile.trackSid} ${tile.quality === "auto" ? `${w}x${h}` : tile.quality}`;
  if (asked === tile.asked) return;
  tile.asked = asked;
  call.setQuality(tile.trackSid, tile.quality, w, h);
}

function playAudio(sid, track) {
  const audio = audios.get(sid) ?? document.createElement("audio");
  audio.autoplay = true;
  audio.srcObject = new MediaStream([track]);
  document.body.append(audio);
  audios.set(sid, audio);
}

function showSpeakers(speakers) {
  for (const { sid, active } of speakers) tiles.get(sid)?.element.classList.toggle("speaking", Boolean(active));
}

setInterval(async () => {
  for (const tile of tiles.values()) {
    const label = tile.element.querySelector(".received");
    const visible = tile.element.classList.contains("has-video");
    if (visible) askQuality(tile);
    const seen = visible && tile.trackSid ? await call?.received(tile.trackSid) : null;
    label.textContent = seen?.height ? `${seen.width}×${seen.height} · ${Math.round(seen.bitrate / 1000)} kbit/s` : "";
  }
}, REFRESH_MS);

addEventListener("resize", render);
addEventListener("beforeunload", () => call?.leave());
