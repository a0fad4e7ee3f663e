// Keeps the page true: on every event it asks for the page again, and takes over what has changed.
// A tab that nobody looks at holds no connection, and asks anew when it is looked at.
// A few changes are shown at once; when they do not end, the page takes a quarter of what is there
// to serve it.
const AT_ONCE = 60, ANYWAY = 10000, AGAIN = 2000, STALE = 1500;
const CREDIT = 3, LEAST = 500, MOST = 5000, EFFORT = 4;
const state = document.getElementById("link-state");
const task = document.body.dataset.task;

let source = null, retry = null, due = null, busy = false, missed = false;
let credit = CREDIT, regain = LEAST, countedAt = performance.now();

function say(key, words) {
  if (state.dataset.state === key) return;
  state.dataset.state = key;
  state.textContent = words;
}

function refresh(delay = AT_ONCE) {
  missed = true;
  if (document.hidden || busy || due !== null) return;
  const now = performance.now();
  credit = Math.min(CREDIT, credit + (now - countedAt) / regain);
  countedAt = now;
  due = setTimeout(run, Math.max(delay, (1 - credit) * regain));
}

async function run() {
  due = null;
  busy = true;
  missed = false;
  credit -= 1;
  const began = performance.now();
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (answer.redirected || answer.status === 401) return location.reload();
    if (answer.ok) take(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    // The stream tells that the controller is away.
  } finally {
    busy = false;
    regain = Math.min(MOST, Math.max(LEAST, EFFORT * (performance.now() - began)));
    if (missed) refresh();
  }
}

function take(next) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const twin = next.getElementById(part.id);
    if (twin) morph(part, document.importNode(twin, true));
  }
  document.dispatchEvent(new Event("dispatch:refreshed"));
  // What is costly may be a little older than the rest: it is asked for again.
  if (document.querySelector("[data-stale]")) setTimeout(refresh, STALE);
}

const keyOf = (node) => (node.nodeType === 1 && (node.dataset.key || node.id)) || null;
const alike = (one, other) =>
  one.nodeType === other.nodeType && one.nodeName === other.nodeName && keyOf(one) === keyOf(other);

// Make `from` like `to` with as few changes as there are, so that focus, selection and scrolling stay.
function morph(from, to) {
  if (from.nodeType !== 1) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  if (from.nodeName === "TIME" && from.dateTime === to.dateTime) return;
  if (from.isEqualNode(to)) return;
  attributes(from, to);
  children(from, to);
}

function attributes(from, to) {
  const kept = (from.dataset.keep || "").split(" ");
  const changed = from.dataset.state !== to.dataset.state;
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && !kept.includes(name)) from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (!kept.includes(name) && from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  if (changed) {
    from.classList.add("changed");
    setTimeout(() => from.classList.remove("changed"), 1600);
  }
}

function children(from, to) {
  const keyed = new Map();
  for (const child of from.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
  let at = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    const key = keyOf(wanted);
    const have = key ? keyed.get(key) : at && !keyOf(at) && alike(at, wanted) ? at : null;
    if (have && alike(have, wanted)) {
      if (have === at) at = at.nextSibling;
      else from.insertBefore(have, at);
      morph(have, wanted);
    } else {
      from.insertBefore(wanted, at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// Whether an event can change this page: another task's changes one task's page only while it waits.
function concerns(event) {
  if (!task) return true;
  const status = document.getElementById("facts")?.dataset.status;
  return status === "pending" || JSON.parse(event.data).task_id === task;
}

function connect() {
  retry = null;
  if (document.hidden || source) return;
  source = new EventSource("/api/v1/stream");
  source.onopen = () => { say("live", "live"); refresh(0); };
  source.onerror = () => {
    say("lost", "not connected");
    if (source.readyState === EventSource.CLOSED) {
      source = null;
      retry ??= setTimeout(connect, AGAIN);
    }
  };
  for (const kind of ["task", "node", "controller", "reset"]) {
    source.addEventListener(kind, (event) => {
      document.dispatchEvent(new CustomEvent(`dispatch:${kind}`, { detail: event.data }));
      if (concerns(event)) refresh();
    });
  }
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) return connect();
  source?.close();
  source = null;
  clearTimeout(retry);
  clearTimeout(due);
  retry = due = null;
});
document.addEventListener("dispatch:changed", () => refresh(0));
setInterval(() => refresh(), ANYWAY);
connect();
