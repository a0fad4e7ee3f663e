// Buttons that change something: each asks first, then tells what came of it.
const dialog = document.getElementById("confirm");
const yes = document.getElementById("confirm-yes");
const told = document.getElementById("told");

let clearing = null;

function tell(words, failed = false) {
  clearTimeout(clearing);
  told.textContent = words;
  told.classList.toggle("failed", failed);
  clearing = setTimeout(() => { told.textContent = ""; }, failed ? 15000 : 5000);
}

function ask(button) {
  document.getElementById("confirm-title").textContent = button.dataset.title;
  document.getElementById("confirm-text").textContent = button.dataset.text;
  yes.textContent = button.dataset.verb;
  yes.className = button.className;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

async function post(address) {
  const answer = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: "{}",
  });
  if (answer.ok) return null;
  const body = await answer.json().catch(() => null);
  return body?.error?.message || `The controller answered ${answer.status}.`;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-post]");
  if (!button || dialog.open) return;
  const { post: address, verb } = button.dataset;
  if (!(await ask(button))) return;
  button.disabled = true;
  try {
    const problem = await post(address);
    tell(problem || `${verb}: done.`, Boolean(problem));
  } catch {
    tell("The controller does not answer: nothing was changed.", true);
  } finally {
    button.disabled = false;
    document.dispatchEvent(new Event("dispatch:changed"));
  }
});

document.getElementById("log-out")?.addEventListener("click", async () => {
  await post("/logout");
  location.assign("/login");
});
