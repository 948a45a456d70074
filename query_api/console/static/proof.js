// Checks a receipt with WebCrypto, as docs/verify_receipt.py does: the event's hash, the Merkle path, the root, the signature.

const text = new TextEncoder();
const bytesOf = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
const hexOf = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const decoded = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

async function sha256(...parts) {
  const joined = new Uint8Array(await new Blob(parts).arrayBuffer());
  return new Uint8Array(await crypto.subtle.digest("SHA-256", joined));
}

// JSON with sorted names and no spaces. Names are sorted by code points, as Python sorts them.
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const names = Object.keys(value).sort(byCodePoints);
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(",")}}`;
}

function byCodePoints(one, other) {
  const [a, b] = [[...one], [...other]].map((letters) => letters.map((letter) => letter.codePointAt(0)));
  const differing = a.findIndex((point, index) => point !== b[index]);
  return differing < 0 ? a.length - b.length : a[differing] - (b[differing] ?? -1);
}

async function eventHash(event) {
  const [seconds, fraction] = event.recorded_at.replace("Z", "").split(".");
  const microseconds = BigInt(Date.parse(`${seconds}Z`)) * 1000n + BigInt(fraction);
  const parts = [event.ledger_id, event.position, event.event_id, event.type, event.schema_version, event.data, event.metadata];
  return sha256(bytesOf(event.hash_before), text.encode(`[${parts.map(canonical).join(",")},${microseconds}]`));
}

async function rootOf(leaf, index, size, path) {
  if (size === 1) {
    if (path.length) throw new Error("The audit path is too long.");
    return leaf;
  }
  if (!path.length) throw new Error("The audit path is too short.");
  let half = 1;
  while (half * 2 < size) half *= 2;
  const rest = path.slice(0, -1);
  const sibling = path.at(-1);
  const one = Uint8Array.of(1);
  return index < half
    ? sha256(one, await rootOf(leaf, index, half, rest), sibling)
    : sha256(one, sibling, await rootOf(leaf, index - half, size - half, rest));
}

async function signatureStep(seal, publicKey) {
  if (!publicKey) return [null, "The signature was not checked: enter the public key, from somebody whom you trust."];
  const raw = decoded(publicKey);
  if (hexOf(await sha256(raw)).slice(0, 16) !== seal.key_id) return [false, "The seal was made with another key."];
  const lines = ["daybook-seal-1", seal.ledger_id, seal.position, seal.root, seal.key_id, seal.sealed_at].join("\n");
  const key = await crypto.subtle.importKey("raw", raw, { name: "Ed25519" }, false, ["verify"]);
  const isTrue = await crypto.subtle.verify({ name: "Ed25519" }, key, bytesOf(seal.signature), text.encode(lines));
  return [isTrue, isTrue ? "The seal is signed with the public key." : "The signature of the seal is not valid."];
}

// Returns the steps of the check as [is it true, a sentence], null for a step that was not made.
export async function proofOf(receipt, shownHash, publicKey) {
  if (!crypto.subtle) return [[null, "Browsers compute hashes only on pages of https or of this machine."]];
  const { event, seal, leaf_index: index } = receipt;
  const hash = hexOf(await eventHash(event));
  const isSame =
    hash === receipt.hash && hash === shownHash && event.position === index + 1 && event.ledger_id === seal.ledger_id;
  const leaf = await sha256(Uint8Array.of(0), bytesOf(receipt.hash));
  const root = hexOf(await rootOf(leaf, index, seal.position, receipt.audit_path.map(bytesOf)));
  const isIncluded = root === seal.root && index < seal.position;
  return [
    [isSame, isSame ? `The event has the hash ${hash}.` : "The event is not the one that was hashed."],
    [
      isIncluded,
      isIncluded
        ? `It is number ${index + 1} of the ${seal.position} events under the root ${root}.`
        : "The event is not in the sealed tree.",
    ],
    await signatureStep(seal, publicKey),
  ];
}
