// Shows a problem document where it happened: what, why, and whether the same request can succeed later.

import { Problem } from "./api.js";
import { h } from "./dom.js";

const KNOWN = new Set(["type", "title", "status", "detail", "code", "retryable", "request_id", "errors"]);

export function problemBox(error) {
  const body = error instanceof Problem ? error.body : { title: "The console made a mistake", detail: String(error) };
  const more = Object.entries(body).filter(([name]) => !KNOWN.has(name));
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("strong", {}, body.title ?? "Problem"),
    body.detail && body.detail !== body.title ? h("p", {}, body.detail) : null,
    h(
      "ul",
      {},
      (body.errors ?? []).map((each) => h("li", {}, h("code", {}, each.pointer), ` ${each.detail}`)),
    ),
    more.length ? h("p", {}, more.map(([name, value]) => `${name}: ${value}`).join(" · ")) : null,
    body.code
      ? h(
          "p",
          {},
          h("a", { href: `problems/${body.code}`, target: "_blank", rel: "noreferrer" }, body.code),
          body.retryable ? ". The same request can succeed later." : ". The same request will not succeed later.",
        )
      : null,
    body.request_id ? h("small", {}, `request ${body.request_id}`) : null,
  );
}
