"use strict";
const $ = id => document.getElementById(id);
const session = JSON.parse($("session").textContent);
const total = session.reads.length;
const keyOf = number => ["lnhg-study", session.study, session.reader, number].join("/");
const key = keyOf(session.session);
const DAY_MS = 86400000;

/* What is kept: the scores given, the seconds already spent on the read that is next, and the end of the session. */
let kept = { done: [], seconds: 0, finished: null };
let keeps = true;
let frames = [], frame = 0;
let ready = false;      /* the pictures of the read are there */
let since = null;       /* when the clock was started; null while it stands */

function load(name) {
  try { return JSON.parse(localStorage.getItem(name)); } catch (error) { return null; }
}

function save() {
  try { localStorage.setItem(key, JSON.stringify(kept)); } catch (error) { keeps = false; }
}

function startClock() { if (ready && since === null && $("cover").hidden) since = performance.now(); }

function stopClock() {
  if (since === null) return;
  kept.seconds += (performance.now() - since) / 1000;
  since = null;
}

/* Scores ------------------------------------------------------------------------------------------------ */

function score() {
  const text = $("score").value.trim();
  return /^\d{1,3}$/.test(text) && Number(text) <= 100 ? Number(text) : null;
}

function confidence() {
  const chosen = document.querySelector("input[name=confidence]:checked");
  return chosen ? Number(chosen.value) : null;
}

function check() {
  const text = $("score").value.trim();
  $("fault").textContent = text && score() === null ? "The score is a whole number from 0 to 100." : "";
  $("next").disabled = !(ready && score() !== null && confidence() !== null);
}

function setScore(value) {
  $("scale").classList.toggle("unset", value === null);
  if (value !== null) $("scale").value = value;
  check();
}

function table() {
  const lines = kept.done.map((given, index) => {
    const read = session.reads[index];
    return [session.reader, read.case, read.modality, given.score, given.confidence, given.seconds,
      session.session, index + 1, read.repeat ? 1 : 0].join(",");
  });
  return [session.columns.join(","), ...lines].join("\n") + "\n";
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "scores-" + session.reader + "-session-" + session.session + ".csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/* Pictures ---------------------------------------------------------------------------------------------- */

function show(index) {
  frame = Math.max(0, Math.min(frames.length - 1, index));
  $("picture").replaceChildren(frames[frame]);
  $("place").textContent = frames.length > 1 ? "slice " + (frame + 1) + " of " + frames.length : "";
}

function picture(name) {
  const image = new Image();
  image.alt = "";
  image.src = name;
  return image;
}

function openRead() {
  const read = session.reads[kept.done.length];
  const mine = frames = read.images.map(picture);
  ready = false;
  $("form").reset();
  setScore(null);
  $("picture").replaceChildren();
  $("place").textContent = "";
  $("scrolling").hidden = frames.length < 2;
  $("count").textContent = (kept.done.length + 1) + " of " + total;
  $("progress").value = kept.done.length / total;
  $("score").focus();
  Promise.all(mine.map(image => image.decode())).then(() => {
    if (mine !== frames) return;
    ready = true;
    show(read.start);
    check();
    if (!document.hidden) startClock();
    const following = session.reads[kept.done.length + 1];
    if (following) following.images.map(picture);
  }, () => { $("fault").textContent = "A picture of this read is missing or damaged: tell the coordinator."; });
}

function next() {
  if ($("next").disabled) return;
  const stored = load(key);
  if (keeps && stored && stored.done.length !== kept.done.length) {
    kept = stored;
    cover();
    $("warning").textContent = "This session went on in another window; close one of them.";
    return;
  }
  stopClock();
  kept.done.push({ score: score(), confidence: confidence(), seconds: Math.round(kept.seconds * 100) / 100 });
  kept.seconds = 0;
  if (kept.done.length === total) kept.finished = Date.now();
  save();
  if (kept.done.length === total) cover(); else openRead();
}

/* The cover: before the first read, in a pause, and at the end ------------------------------------------ */

function waiting() {
  const before = session.session > 1 ? load(keyOf(session.session - 1)) : null;
  if (!before || kept.done.length) return "";
  if (!before.finished) return "The session before this one is not finished in this browser.";
  const opens = new Date(before.finished + session.washout_days * DAY_MS);
  return Date.now() < opens ? "The last session was too short a time ago: begin on " + opens.toLocaleDateString() +
    " or later (" + session.washout_days + " days)." : "";
}

function cover() {
  stopClock();
  frames = [];
  ready = false;
  $("picture").replaceChildren();
  const done = kept.done.length;
  const over = done === total;
  const wait = waiting();
  $("cover").hidden = false;
  $("heading").textContent = over ? "All " + total + " reads are done" : "Session " + session.session + " of " +
    session.sessions + (done ? ": " + done + " of " + total + " reads done" : ": " + total + " reads");
  $("message").textContent = over ? "Save the scores and send the file to the coordinator." :
    "One picture at a time. Your scores are kept in this browser: you may close it and go on later at the same place.";
  $("warning").textContent = keeps ? wait :
    "This browser keeps no scores: do all reads without closing it, and save the scores at the end.";
  $("insist").hidden = !wait;
  $("start").hidden = over;
  $("start").textContent = done || kept.seconds ? "Go on" : "Start";
  $("start").disabled = Boolean(wait) && !$("insisted").checked;
  $("save").hidden = !done;
  $("progress").value = done / total;
  $("count").textContent = done + " of " + total;
  save();
  (over ? $("save") : $("start")).focus();
}

function uncover() {
  $("cover").hidden = true;
  openRead();
}

/* What the reader does ---------------------------------------------------------------------------------- */

function onKey(event) {
  if (!$("cover").hidden || event.ctrlKey || event.altKey || event.metaKey) return;
  const steps = { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5 };
  if (event.key in steps) {
    if (frames.length > 1 && ready) show(frame + steps[event.key]);
    event.preventDefault();
  } else if (event.key === "Escape") {
    cover();
  } else if (event.key === "Enter") {
    event.preventDefault();
    if (document.activeElement === $("pause")) cover();
    else if (!$("next").disabled) next();
    else if (score() !== null) document.querySelector("input[name=confidence]").focus();
  } else if (document.activeElement.name === "confidence" && /^[1-5]$/.test(event.key)) {
    const choice = document.querySelector("input[name=confidence][value='" + event.key + "']");
    choice.checked = true;
    choice.focus();
    check();
  }
}

$("who").textContent = session.reader + ", session " + session.session + " of " + session.sessions;
$("score").addEventListener("input", () => setScore(score()));
for (const kind of ["input", "click"])  /* a click at the place where the slider already is makes no input */
  $("scale").addEventListener(kind, () => { $("score").value = $("scale").value; setScore(score()); });
$("confidence").addEventListener("change", check);
$("form").addEventListener("submit", event => { event.preventDefault(); next(); });
$("pause").addEventListener("click", cover);
$("start").addEventListener("click", uncover);
$("save").addEventListener("click", download);
$("insisted").addEventListener("change", () => { $("start").disabled = !$("insisted").checked; });
document.addEventListener("keydown", onKey);
document.querySelector("figure").addEventListener("wheel", event => {
  if (frames.length > 1 && ready) show(frame - Math.sign(event.deltaY));
  event.preventDefault();
}, { passive: false });
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { stopClock(); save(); } else startClock();
});
addEventListener("pagehide", () => { stopClock(); save(); });

kept = load(key) || kept;
save();
cover();
