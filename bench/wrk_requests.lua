-- Makes the requests for wrk: the same as bench/workloads.py. Arguments: method, path, picker, number of accounts, nonce,
-- seed, transfers in a batch (0: a request is a single transfer).
-- The last line of the output is JSON with the measured figures.

local method, path, picker, accounts, nonce, batch
local count = 0
local weights = {}

local function account_id(number)
  return string.format("00000000-0000-4000-8000-%012d", number)
end

-- Returns a random account number by Zipf's law: the first number whose accumulated weight reaches a random weight.
local function zipf()
  local wanted, low, high = math.random() * weights[accounts], 1, accounts
  while low < high do
    local middle = math.floor((low + high) / 2)
    if weights[middle] < wanted then low = middle + 1 else high = middle end
  end
  return low
end

local function draw()
  if picker == "zipf" then return zipf() end
  return math.random(accounts)
end

local function payee_of(payer)
  local payee = picker == "hot" and 1 or draw()
  if payee == payer then return payer % accounts + 1 end
  return payee
end

local function transfer(payer)
  return string.format('{"from_account_id":"%s","to_account_id":"%s","amount":7,"currency":"EUR"}',
                       account_id(payer), account_id(payee_of(payer)))
end

function init(arguments)
  method, path, picker = arguments[1], arguments[2], arguments[3]
  accounts, nonce = tonumber(arguments[4]), arguments[5]
  batch = tonumber(arguments[7])
  math.randomseed(tonumber(arguments[6]))
  local sum = 0
  for rank = 1, accounts do
    sum = sum + 1 / rank
    weights[rank] = sum
  end
end

function request()
  local payer = draw()
  if method == "GET" then
    return wrk.format(method, (path:gsub("{account}", account_id(payer))))
  end
  count = count + 1
  local headers = {["Content-Type"] = "application/json", ["Idempotency-Key"] = nonce .. "-" .. count,
                   ["Authorization"] = wrk.headers["Authorization"]}
  local body = transfer(payer)
  if batch > 0 then
    local transfers = {body}
    for number = 2, batch do transfers[number] = transfer(draw()) end
    body = '{"mode":"independent","transfers":[' .. table.concat(transfers, ",") .. ']}'
  end
  return wrk.format(method, path, headers, body)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('\n{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
