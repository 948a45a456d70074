// Sends requests to the two APIs with the credential of this session. Nothing else in the console sends any.

const QUERY = new URL("./", document.baseURI).href.replace(/\/$/, "");
const COMMAND = document.querySelector('meta[name="command-url"]').content.replace(/\/$/, "");
const SESSION = "daybook-session";
const FRESH_MS = 30_000;

let session = JSON.parse(sessionStorage.getItem(SESSION) || "null");
let written = { position: 0, at: 0 };
let exponents = null;

export const urls = { query: QUERY, command: COMMAND };

// An answer that is no success. `body` is the problem document.
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `The answer was ${status}.`);
    this.status = status;
    this.body = body;
  }
}

export function current() {
  return session;
}

export function begin(started) {
  session = started;
  exponents = null;
  sessionStorage.setItem(SESSION, JSON.stringify(session));
}

export function forget() {
  session = null;
  written = { position: 0, at: 0 };
  sessionStorage.removeItem(SESSION);
}

function headers(more = {}) {
  const sent = { ...more };
  if (session?.token) sent.Authorization = `Bearer ${session.token}`;
  if (session?.ledger) sent["Daybook-Ledger"] = session.ledger;
  return sent;
}

async function send(url, options) {
  let answer;
  try {
    answer = await fetch(url, { ...options, credentials: "omit", redirect: "error", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const origin = url.startsWith(COMMAND) && !url.startsWith(`${QUERY}/`);
    const hint = origin ? ` Does DAYBOOK_CORS_ORIGINS of the command API name ${location.origin}?` : "";
    throw new Problem(0, { title: "No answer", detail: `${new URL(url).origin} does not answer.${hint}`, retryable: true });
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    body = { title: answer.statusText, detail: text.slice(0, 200) };
  }
  if (answer.status === 401 && session?.token) document.dispatchEvent(new CustomEvent("session-ended"));
  throw new Problem(answer.status, body);
}

export function address(path, parameters = {}) {
  const named = Object.entries(parameters).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const text = new URLSearchParams(named).toString();
  return text ? `${path}?${text}` : path;
}

// Asks the query API. Shortly after a command, the answer includes what that command wrote.
export async function answerOf(path, parameters, { signal, accept = "application/json" } = {}) {
  const fresh = Date.now() - written.at < FRESH_MS ? { "Daybook-Min-Position": String(written.position) } : {};
  return send(QUERY + address(path, parameters), { signal, headers: headers({ Accept: accept, ...fresh }) });
}

export async function query(path, parameters, options) {
  return (await answerOf(path, parameters, options)).json();
}

// Sends a command. The answer has the body, and the position that the command was recorded at.
export async function command(method, path, body, { dryRun = false, key, signal } = {}) {
  const named = { Accept: "application/json", ...(key && !dryRun ? { "Idempotency-Key": key } : {}) };
  if (body !== undefined) named["Content-Type"] = "application/json";
  const url = COMMAND + address(path, dryRun ? { dry_run: "true" } : {});
  const text = body === undefined ? undefined : JSON.stringify(body);
  const answer = await send(url, { method, signal, headers: headers(named), body: text });
  const position = Number(answer.headers.get("Daybook-Position") || 0);
  if (position > written.position) written = { position, at: Date.now() };
  return answer.status === 204 ? null : answer.json();
}

export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `console-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

// ── money ────────────────────────────────────────────────────────────────────────────────────────────────────────────

export async function loadCurrencies() {
  exponents ??= new Map((await query("/v1/currencies")).map((currency) => [currency.code, currency.exponent]));
  return exponents;
}

// An amount of minor units, a number or a text of digits, in major units: no float is ever made of it.
export function money(amount, currency) {
  if (amount === null || amount === undefined) return "–";
  const exponent = exponents?.get(currency);
  if (exponent === undefined) return `${amount} minor units`;
  const value = BigInt(amount);
  const digits = (value < 0n ? -value : value).toString().padStart(exponent + 1, "0");
  const whole = digits.slice(0, digits.length - exponent).replace(/\B(?=(\d{3})+$)/g, " ");
  const sign = value < 0n ? "−" : "";
  return `${sign}${whole}${exponent ? `.${digits.slice(-exponent)}` : ""} ${currency}`;
}

// Reads an amount in major units, such as 12.50, and returns minor units, or null if it is none.
export function minorUnits(text, currency) {
  const exponent = exponents?.get(currency);
  const found = /^([0-9]+)(?:\.([0-9]+))?$/.exec(text.trim());
  if (!found || exponent === undefined || (found[2] ?? "").length > exponent) return null;
  const amount = Number(BigInt(found[1] + (found[2] ?? "").padEnd(exponent, "0")));
  return Number.isSafeInteger(amount) ? amount : null;
}
