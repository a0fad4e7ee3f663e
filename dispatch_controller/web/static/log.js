// Shows a task's log as it grows. Text is only ever put in as text.
const PAGE = 256 * 1024, KEPT = 2 * 1024 * 1024, AGAIN = 3000;
const task = document.body.dataset.task;
const address = `/api/v1/tasks/${encodeURIComponent(task)}/log`;
const view = document.getElementById("log");
const state = document.getElementById("log-state");
const follow = document.getElementById("log-follow");
const fromStart = document.getElementById("log-start");
// Colours and cursor movements of terminals, which say nothing here.
const CODES = /\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])/g;

let source = null, retry = null, ended = false, shown = 0;

function clear() {
  view.textContent = "";
  shown = 0;
}

function add(text) {
  view.append(text.replace(CODES, "").replace(/\r(?!\n)/g, "\n"));
  shown += text.length;
  while (shown > KEPT && view.childNodes.length > 1) {
    shown -= view.firstChild.data.length;
    view.firstChild.remove();
  }
  if (follow.checked) view.scrollTop = view.scrollHeight;
}

async function begin(whole = false) {
  stop();
  clear();
  ended = false;
  if (!document.getElementById("facts").dataset.node) return unavailable("It has not run yet.");
  let size = 0;
  try {
    const answer = await fetch(`${address}?limit=1`);
    const body = await answer.json();
    if (!body.ok) return unavailable(body.error.message);
    size = body.data.size;
  } catch {
    return unavailable("The controller does not answer.");
  }
  const offset = whole ? 0 : Math.max(0, size - PAGE);
  fromStart.hidden = offset === 0;
  listen(offset);
}

function listen(offset) {
  if (document.hidden || source) return;
  source = new EventSource(`${address}/stream?offset=${offset}`);
  source.onopen = () => { state.textContent = "following"; };
  source.addEventListener("log", (event) => add(JSON.parse(event.data).text));
  source.addEventListener("restart", () => { clear(); fromStart.hidden = true; });
  source.addEventListener("unavailable", (event) => { stop(); unavailable(JSON.parse(event.data).why); });
  source.addEventListener("end", () => {
    ended = true;
    stop();
    state.textContent = shown ? "ended" : "It wrote nothing.";
  });
  source.onerror = () => {
    state.textContent = "not connected";
    if (source && source.readyState === EventSource.CLOSED) {
      stop();
      later();
    }
  };
}

function unavailable(why) {
  state.textContent = why;
}

function later(delay = AGAIN) {
  retry ??= setTimeout(() => { retry = null; begin(); }, delay);
}

function stop() {
  source?.close();
  source = null;
  clearTimeout(retry);
  retry = null;
}

fromStart.addEventListener("click", () => begin(true));
follow.addEventListener("change", () => { if (follow.checked) view.scrollTop = view.scrollHeight; });
// Who scrolls up wants to read; who scrolls to the end wants to follow.
view.addEventListener("scroll", () => {
  follow.checked = view.scrollHeight - view.scrollTop - view.clientHeight < 40;
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stop();
  else if (!ended) begin();
});
document.addEventListener("dispatch:task", (event) => {
  const told = JSON.parse(event.detail);
  if (told.task_id === task && told.event_type === "task_running") later(300);
});
begin();
