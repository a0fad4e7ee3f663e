// Keeps relative times true, and gives their titles in the reader's own time zone.
const STEPS = [[60, 1, "s"], [3600, 60, "min"], [172800, 3600, "h"], [Infinity, 86400, "d"]];

function words(age) {
  const seconds = Math.floor(Math.abs(age));
  if (seconds < 1) return "now";
  const [, unit, name] = STEPS.find(([below]) => seconds < below);
  let text = `${Math.floor(seconds / unit)} ${name}`;
  const minutes = Math.floor((seconds % 3600) / 60);
  if (name === "h" && seconds < 36000 && minutes) text += ` ${minutes} min`;
  return age > 0 ? `${text} ago` : `in ${text}`;
}

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

function update() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = Date.parse(time.dateTime);
    if (Number.isNaN(at)) continue;
    const text = words((now - at) / 1000);
    if (time.textContent !== text) time.textContent = text;
    const title = exact.format(at);
    if (time.title !== title) time.title = title;
  }
}

update();
setInterval(update, 1000);
document.addEventListener("dispatch:refreshed", update);
