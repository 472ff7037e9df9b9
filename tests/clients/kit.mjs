// What the Node clients' scripts share: scripted prompts, data, and the loop over their scenarios.
// A script names its dialects as objects {dialect, make(model) -> {scenario: function}, client?}.
// NODE_PATH says where the clients are; arguments of the command are the only scenarios to run.
import assert from "node:assert";
import { createRequire } from "node:module";

// `import` does not know NODE_PATH.
export const require = createRequire(import.meta.url);
export const same = assert.deepEqual;

export const GATEWAY = process.env.GATEWAY.replace(/\/$/, "");
export const V1 = GATEWAY + "/v1";
export const KEY = process.env.KEY;
export const WRONG_KEY = "sk-wrong";
// Upstream's dialect -> name of a model that is served there.
const MODELS = JSON.parse(process.env.MODELS);
// Patterns of scenarios, or of dialect/upstream/scenario.
const SKIP = (process.env.SKIP ?? "").split(",").filter(Boolean);
export const TIMEOUT_MS = 30_000;

export const PNG_BASE64 =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
export const PNG = Buffer.from(PNG_BASE64, "base64");
export const PNG_URL = "data:image/png;base64," + PNG_BASE64;
export const SAID = "The river bends twice before the mill.";
export const THOUGHT = "First the river, then the mill.";
export const EMOJI = "Family 👩‍👩‍👧‍👦 waves 🇩🇰 and 👍🏽 then 🏴󠁧󠁢󠁳󠁣󠁴󠁿 with ❤️‍🔥 ends 🧑🏿‍🚀.";
export const UNICODE = 'Ærø 東京 हिन्दी العربية עברית e\u0301 \u200b"quoted" back\\slash\ttab\nline ☃ end';
// 20 of these are a long history.
const FILLER = "The mill turns slowly and the river does not mind it. ".repeat(190);
const LONG = 200_000;

export const prompt = (script, text = "Do as you are told.") => `${text} <<script ${JSON.stringify(script)}>>`;
export const call = (name = "find_city", city = "Paris") => ({ name, arguments: { city } });
export const TWO_CALLS = [call("find_city", "Paris"), call("find_time", "Oslo")];
export const SCHEMA = {
  type: "object",
  properties: { city: { type: "string", description: "Name of the city" } },
  required: ["city"],
  additionalProperties: false,
};
export const RESULTS = { find_city: "it is by the Seine", find_time: "it is noon" };
/** Ten rounds of a long conversation. */
export const history = () =>
  Array.from({ length: 20 }, (_, turn) => ({ role: turn % 2 ? "assistant" : "user", content: FILLER }));

export function has(text, ...pieces) {
  for (const piece of pieces) assert.ok(text?.includes(piece), `"${piece}" is not in "${text}"`);
}

export function sawImage(text) {
  const seen = JSON.parse(text);
  same([seen.images, seen.image_bytes], [1, PNG.length]);
}

export function sawLong(text) {
  const { bytes } = JSON.parse(text);
  assert.ok(bytes >= LONG, `only ${bytes} bytes arrived`);
}

/** The error of this kind that the act ends with. */
export async function raised(kind, act) {
  let error;
  try {
    await act();
  } catch (caught) {
    error = caught;
  }
  assert.ok(error, `no ${kind.name} was thrown`);
  if (!(error instanceof kind)) throw error;
  return error;
}

/** Marks a scenario that is the same for every upstream. */
export const once = (scenario) => Object.assign(scenario, { once: true });

/** Runs all scenarios of the dialects for each model, prints a line for each, and exits. */
export async function run(client, version, ...dialects) {
  tell("version", client, version);
  let failed = false;
  for (const [number, [upstream, model]] of Object.entries(MODELS).entries()) {
    for (const { dialect, make, client: own = client } of dialects) {
      for (const [name, act] of Object.entries(make(model))) {
        if ((act.once && number > 0) || skipped(dialect, upstream, name)) continue;
        const where = [own, dialect, act.once ? "-" : upstream, name];
        try {
          await act();
          tell("ok", ...where);
        } catch (error) {
          failed = true;
          tell("FAIL", ...where, reason(error));
        }
      }
    }
  }
  // Connections kept alive must not delay the end.
  process.exit(failed ? 1 : 0);
}

const tell = (...fields) => console.log(fields.join("\t"));

function matches(pattern, name) {
  const parts = pattern.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(name);
}

function skipped(dialect, upstream, name) {
  const wanted = process.argv.slice(2);
  if (wanted.length && !wanted.some((pattern) => matches(pattern, name))) return true;
  const names = [name, `${dialect}/${upstream}/${name}`];
  return SKIP.some((pattern) => names.some((one) => matches(pattern, one)));
}

function reason(error) {
  const line = /(\w+\.mjs:\d+)(?=:\d+\)?$)/m;
  const place = (error.stack ?? "").split("\n").filter((text) => !text.includes("kit.mjs")).join("\n").match(line)?.[1];
  return `${place ?? ""} ${error.name}: ${error.message}`.replace(/\s+/g, " ").trim().slice(0, 400);
}
