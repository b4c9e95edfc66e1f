// The stops: ask once more, then ask the engine. Never: shows a state that the engine has not told.

const WORDS = {
  halt: ["Halt?", "No position is opened any more. Exits go on by the strategy, open orders stay. Only `gpuscalp resume` ends it.", "Halt now"],
  reduce: ["Reduce only?", "No position is opened any more, and open orders that would add risk are cancelled. Exits go on by the strategy. Only `gpuscalp resume` ends it.", "Reduce now"],
  flatten: ["Flatten everything?", "All orders are cancelled and every position is closed at the market, again and again until it is. Afterwards nothing passes until `gpuscalp resume`.", "Flatten now"],
  stop: ["Stop the engine?", "The engine's process ends. Positions stay as they are, with nobody to watch them, and are there at the next start.", "Stop now"],
};
// For this tab alone, and gone with it.
const KEY = "gpuscalp-token";
const find = (id) => document.getElementById(id);

// which: gives the words by which a session is told from others, as the head of the page has them.
export function prepareStops(which) {
  const dialog = find("confirm"), token = find("token"), refused = find("refused"), really = find("really");
  let command = "", busy = false;

  for (const button of document.querySelectorAll("#stops button")) {
    button.addEventListener("click", () => {
      command = button.dataset.command;
      const [title, text, deed] = WORDS[command];
      find("confirm-title").textContent = title;
      find("confirm-which").textContent = Object.values(which()).filter((each) => each).join(" · ");
      find("confirm-text").textContent = text;
      really.textContent = deed;
      refused.textContent = "";
      token.value = sessionStorage.getItem(KEY) ?? "";
      find("token-row").hidden = token.value !== "";
      dialog.showModal();
      // Neither Enter nor a second click where the first one was may stop anything by mistake.
      (token.value ? find("cancel") : token).focus();
    });
  }
  find("cancel").addEventListener("click", () => dialog.close());
  dialog.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    really.disabled = true;
    refused.textContent = "";
    try {
      const given = token.value.trim();
      const answer = await fetch("/stop", {
        method: "POST",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${given}` },
        body: JSON.stringify({ command }),
      });
      const told = await answer.json();
      if (answer.ok) {
        sessionStorage.setItem(KEY, given);
        say(`${command}: the gate is ${told.state}`, "good");
        dialog.close();
      } else {
        if (answer.status === 401) {
          sessionStorage.removeItem(KEY);
          find("token-row").hidden = false;
          token.focus();
        }
        refused.textContent = told.error;
      }
    } catch (error) {
      refused.textContent = `The dashboard does not answer (${error.message}). Use gpuscalp ${command} on a terminal.`;
    } finally {
      busy = false;
      really.disabled = false;
    }
  });
}

function say(text, kind) {
  const said = find("said");
  said.textContent = text;
  said.className = kind === "good" ? "up" : "down";
}
