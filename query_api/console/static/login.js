// The way in and out: an API key, or a user's e-mail address and password. The token stays in this tab's session storage.

import { begin, command, current, forget, query } from "./api.js";
import { field, h } from "./dom.js";
import { problemBox } from "./problem.js";

export function loginPage(started, reason) {
  const failed = h("div");
  const key = h("input", { name: "key", type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const email = h("input", { name: "email", type: "email", autocomplete: "username", required: true });
  const password = h("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  const ledger = h("input", { name: "ledger", placeholder: "main", maxlength: "31", autocomplete: "off" });
  const trying = (begins) => async (event) => {
    event.preventDefault();
    failed.replaceChildren();
    try {
      await begins();
    } catch (error) {
      forget();
      failed.replaceChildren(problemBox(error));
      return;
    }
    started();
  };
  const withKey = trying(async () => {
    begin({ token: key.value.trim() });
    await query("/v1/caller");
  });
  const withPassword = trying(async () => {
    begin({ ledger: ledger.value.trim() || undefined });
    const login = await command("POST", "/v1/login", { email: email.value.trim(), password: password.value });
    begin({ token: login.token, sessionId: login.session_id });
  });
  return h(
    "div",
    { class: "login" },
    h("h1", {}, "Log in"),
    reason ? h("p", { role: "alert", class: "problem" }, reason) : null,
    failed,
    h(
      "form",
      { onsubmit: withKey, "aria-label": "With an API key" },
      h("h2", {}, "With an API key"),
      field("API key", key),
      h("button", {}, "Use this key"),
    ),
    h(
      "form",
      { onsubmit: withPassword, "aria-label": "As a user" },
      h("h2", {}, "As a user"),
      field("E-mail address", email),
      field("Password", password),
      field("Ledger", ledger),
      h("button", {}, "Log in"),
    ),
  );
}

// Forgets the credential, and ends the session of a user who has logged in.
export async function logOut(caller) {
  const { sessionId } = current() ?? {};
  try {
    if (sessionId && caller.user_id) await command("DELETE", `/v1/users/${caller.user_id}/sessions/${sessionId}`);
  } catch {
    // It ends by itself when it is not used.
  }
  forget();
}
