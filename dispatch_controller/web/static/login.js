// Trades the token for a session; the token itself is kept nowhere.
const form = document.getElementById("log-in");
const refused = document.getElementById("refused");
const token = document.getElementById("token");

// A link from another site comes without the cookie; who is logged in all the same goes on.
fetch("/api/v1/status").then((answer) => { if (answer.ok) location.replace(form.dataset.next); });

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  refused.textContent = "";
  try {
    const answer = await fetch("/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: token.value }),
    });
    if (answer.ok) return location.replace(form.dataset.next);
    const body = await answer.json().catch(() => null);
    refused.textContent = body?.error?.message || `The controller answered ${answer.status}.`;
  } catch {
    refused.textContent = "The controller does not answer.";
  }
  token.select();
});
