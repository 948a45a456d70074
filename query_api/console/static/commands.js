// Commands as forms. Each is tried first: a dry run shows the answer, and only then can the command be recorded.

import { command, minorUnits, money, newKey } from "./api.js";
import { button, facts, field, h, json, link, shortId, table } from "./dom.js";
import { FORMS } from "./forms.js";
import { problemBox } from "./problem.js";

export async function commands(page) {
  const offered = FORMS.filter((form) => page.can(form.operation));
  return [
    h("p", { class: "note" }, "Every command is tried first. Nothing is recorded before you confirm it."),
    h(
      "ul",
      {},
      offered.map((form) => h("li", {}, link(`#/commands/${form.name}`, form.title))),
    ),
  ];
}

export async function showCommand(page) {
  const form = FORMS.find((each) => each.name === page.id);
  if (!form || !page.can(form.operation)) return h("p", {}, "There is no such command that you may send.");
  const controls = new Map(form.fields.map((each) => [each, control(each, page)]));
  const outcome = h("div", { "aria-live": "polite" });
  const labelled = [...controls].map(([each, input]) => field(each.label, input));
  // One key for one command: whoever sends it again after a lost answer gets the first answer.
  let key = newKey();
  const shown = h("form", { class: "form", "aria-label": form.title }, labelled, h("button", {}, "Try it"));
  const confirm = async (request, asked) => {
    asked.disabled = true;
    try {
      const answer = await command(request.method, request.path, request.body, { key });
      key = newKey();
      outcome.replaceChildren(recorded(form, answer));
    } catch (error) {
      asked.disabled = false;
      outcome.prepend(problemBox(error));
    }
  };
  shown.addEventListener("input", () => {
    outcome.replaceChildren();
    key = newKey();
  });
  shown.addEventListener("submit", async (event) => {
    event.preventDefault();
    const request = requestOf(form, controls);
    if (!request) return;
    try {
      const answer = await command(request.method, request.path, request.body, { dryRun: true });
      const record = button(`Record it in ledger ${page.caller.ledger_id}`, () => confirm(request, record), { class: "main" });
      outcome.replaceChildren(
        h("div", { class: "result" }, h("strong", {}, "Tried. Nothing is recorded yet."), answered(answer), record),
      );
    } catch (error) {
      outcome.replaceChildren(problemBox(error));
    }
  });
  return [h("h2", {}, form.title), shown, outcome];
}

function control(each, page) {
  const value = page.params.get(each.name) ?? "";
  const attributes = { name: each.name, value, required: each.required, autocomplete: "off", spellcheck: "false" };
  if (each.kind === "amount") Object.assign(attributes, { inputmode: "decimal", maxlength: "20" });
  if (each.kind === "currency") Object.assign(attributes, { maxlength: "3", size: "5" });
  if (each.kind === "id") Object.assign(attributes, { maxlength: "36", class: "id" });
  if (each.kind === "text") attributes.maxlength = String(each.length);
  return h("input", attributes);
}

// The request of a filled form, or null after it has said which field is wrong.
function requestOf(form, controls) {
  const [method, template] = form.operation.split(" ");
  const named = Object.fromEntries([...controls].map(([each, input]) => [each.name, input]));
  let path = template;
  const body = {};
  for (const [each, input] of controls) {
    const text = input.value.trim();
    let value = text;
    input.setCustomValidity("");
    if (each.kind === "amount" && text) {
      value = minorUnits(text, named.currency.value.trim().toUpperCase());
      if (value === null) {
        input.setCustomValidity(
          "Write an amount with no more decimal places than the currency has, such as 12.50, and its currency.",
        );
        input.reportValidity();
        input.addEventListener("input", () => input.setCustomValidity(""), { once: true });
        return null;
      }
    }
    if (each.kind === "currency") value = text.toUpperCase();
    if (path.includes(`{${each.name}}`)) path = path.replace(`{${each.name}}`, encodeURIComponent(text));
    else if (text && each.sent !== false) body[each.name] = value;
  }
  const hasBody = form.fields.some((each) => each.sent !== false && !template.includes(`{${each.name}}`));
  return { method, path, body: hasBody ? body : undefined };
}

function answered(answer) {
  const balances = table(
    "Balances after it",
    [
      ["Account", (row) => shortId(row.account_id, `#/accounts/${row.account_id}`)],
      ["Posted", (row) => money(row.posted, row.currency ?? answer.currency), "number"],
      ["Held", (row) => money(row.held, row.currency ?? answer.currency), "number"],
      ["Available", (row) => money(row.available, row.currency ?? answer.currency), "number"],
    ],
    answer.balances ?? [],
  );
  return h(
    "div",
    {},
    answer.balances?.length ? balances : null,
    h("details", {}, h("summary", {}, "The whole answer"), json(answer)),
  );
}

function recorded(form, answer) {
  return h(
    "div",
    { class: "result" },
    h("strong", {}, "Recorded."),
    facts([
      ["Position", String(answer.position ?? "")],
      ["Open it", form.makes && answer.id ? link(`#/${form.makes}/${answer.id}`, answer.id) : null],
    ]),
    answered(answer),
  );
}
