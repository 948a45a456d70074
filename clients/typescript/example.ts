import type { Answer, Problem, RequestBody } from "./src/index.ts";

async function deposit(commandUrl: string, key: string, body: RequestBody<"deposit">): Promise<Answer<"deposit">> {
  const answer = await fetch(`${commandUrl}/v1/deposits`, {
    method: "POST",
    headers: {
      Authorization: `Bearer ${key}`,
      "Content-Type": "application/json",
      "Idempotency-Key": crypto.randomUUID(),
    },
    body: JSON.stringify(body),
  });
  if (!answer.ok) {
    const problem = (await answer.json()) as Problem;
    throw new Error(`${problem.code}: ${problem.detail}`);
  }
  return (await answer.json()) as Answer<"deposit">;
}

const account = "0198c5a0-0000-7000-8000-0000000000e1";
const recorded = await deposit("http://127.0.0.1:8000", "dbk_…", { account_id: account, amount: 1250, currency: "EUR" });
console.log(recorded.position, recorded.balances[0]?.available);

// @ts-expect-error: an amount is an integer in minor units, and no text
await deposit("http://127.0.0.1:8000", "dbk_…", { account_id: account, amount: "12.50", currency: "EUR" });
// @ts-expect-error: the member has another name
await deposit("http://127.0.0.1:8000", "dbk_…", { account: account, amount: 1250, currency: "EUR" });

type Balance = Answer<"get_balance">;
const spendable = (balance: Balance): number => ("available" in balance ? balance.available : balance.posted);
// @ts-expect-error: no balance has this member
const spent = (balance: Balance): number => balance.spent;
console.log(spendable, spent);
