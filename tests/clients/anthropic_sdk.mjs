// The official Anthropic SDK for Node, scenario by scenario.
import assert from "node:assert";
import * as kit from "./kit.mjs";
import { has, once, prompt, raised, require, same } from "./kit.mjs";

const Anthropic = require("@anthropic-ai/sdk").Anthropic;
const { VERSION } = require("@anthropic-ai/sdk/version");
const { zodOutputFormat } = require("@anthropic-ai/sdk/helpers/zod");
const { z } = require("zod");

const settings = { baseURL: kit.GATEWAY, maxRetries: 0, timeout: kit.TIMEOUT_MS };
const client = new Anthropic({ ...settings, apiKey: kit.KEY });
const wrong = new Anthropic({ ...settings, apiKey: kit.WRONG_KEY });
const Place = z.object({ city: z.string(), number: z.number().int() });
const THINKING = { type: "enabled", budget_tokens: 1024 };
const user = (script) => [{ role: "user", content: prompt(script) }];
const blocks = (message, type) => message.content.filter((block) => block.type === type);
const text = (message) => blocks(message, "text").map((block) => block.text).join("");
const inputs = (message) => blocks(message, "tool_use").map((use) => use.input);

/** The message with calls, as it goes back, and the results of the calls. */
const results = (message, more) => [
  { role: "assistant", content: message.content },
  {
    role: "user",
    content: blocks(message, "tool_use").map((use) => ({
      type: "tool_result",
      tool_use_id: use.id,
      content: kit.RESULTS[use.name],
      ...more,
    })),
  },
];

function messages(model) {
  const tools = Object.keys(kit.RESULTS).map((name) => ({ name, input_schema: kit.SCHEMA }));
  const asked = (messages, more) => ({ model, max_tokens: 2000, messages, ...more });
  const create = (messages, more) => client.messages.create(asked(messages, more));
  const stream = (messages, more) => client.messages.stream(asked(messages, more));
  const fault = (kind, fault) => raised(kind, () => create(user({ fault })));

  return {
    async text() {
      const reply = await create(user({ say: kit.SAID }));
      same([text(reply), reply.stop_reason], [kit.SAID, "end_turn"]);
      assert.ok(reply.usage.output_tokens > 0 && reply.usage.input_tokens > 0);
    },
    async stream() {
      let joined = "";
      const running = stream(user({ say: kit.SAID })).on("text", (piece) => (joined += piece));
      const reply = await running.finalMessage();
      same([joined, text(reply), reply.stop_reason], [kit.SAID, kit.SAID, "end_turn"]);
      assert.ok(reply.usage.output_tokens > 0 && reply.usage.input_tokens > 0);
    },
    async tool() {
      const asked = user({ call: kit.call() });
      const reply = await create(asked, { tools });
      same([inputs(reply), reply.stop_reason], [[{ city: "Paris" }], "tool_use"]);
      has(text(await create([...asked, ...results(reply)], { tools })), kit.RESULTS.find_city);
    },
    async tool_error() {
      const asked = user({ call: kit.call() });
      const told = results(await create(asked, { tools }), { is_error: true });
      has(text(await create([...asked, ...told], { tools })), kit.RESULTS.find_city);
    },
    async parallel() {
      const asked = user({ call: kit.TWO_CALLS });
      const reply = await create(asked, { tools });
      same(inputs(reply), [{ city: "Paris" }, { city: "Oslo" }]);
      has(text(await create([...asked, ...results(reply)], { tools })), ...Object.values(kit.RESULTS));
    },
    async tool_stream() {
      const asked = user({ say: kit.SAID, call: kit.TWO_CALLS });
      const reply = await stream(asked, { tools }).finalMessage();
      same([text(reply), inputs(reply)], [kit.SAID, [{ city: "Paris" }, { city: "Oslo" }]]);
      const told = await stream([...asked, ...results(reply)], { tools }).finalMessage();
      has(text(told), ...Object.values(kit.RESULTS));
    },
    async thinking() {
      const asked = user({ thinking: kit.THOUGHT, call: kit.call() });
      const more = { tools, thinking: THINKING };
      const reply = await create(asked, more);
      same(reply.content[0].thinking, kit.THOUGHT);
      has(text(await create([...asked, ...results(reply)], more)), kit.RESULTS.find_city);
    },
    async thinking_stream() {
      const asked = user({ thinking: kit.THOUGHT, call: kit.call() });
      const more = { tools, thinking: THINKING };
      const reply = await stream(asked, more).finalMessage();
      same(reply.content[0].thinking, kit.THOUGHT);
      const told = await stream([...asked, ...results(reply)], more).finalMessage();
      has(text(told), kit.RESULTS.find_city);
    },
    async image() {
      const source = { type: "base64", media_type: "image/png", data: kit.PNG_BASE64 };
      const content = [{ type: "image", source }, { type: "text", text: prompt({ see: true }) }];
      kit.sawImage(text(await create([{ role: "user", content }])));
    },
    async json() {
      const output_config = { format: zodOutputFormat(Place) };
      const reply = await client.messages.parse(asked(user({}), { output_config }));
      same(reply.parsed_output, { city: "Paris", number: 7 });
    },
    async long() {
      kit.sawLong(text(await create([...kit.history(), ...user({ see: true })])));
    },
    async emoji() {
      same(await stream(user({ say: kit.EMOJI, split_chars: true })).finalText(), kit.EMOJI);
    },
    async unicode() {
      same(text(await create(user({ say: kit.UNICODE }))), kit.UNICODE);
      const reply = await create(user({ call: kit.call("find_city", kit.UNICODE) }), { tools });
      same(inputs(reply), [{ city: kit.UNICODE }]);
    },
    async cancel() {
      let count = 0;
      for await (const _ of stream(user({ say: "again ", repeat: 500, gap_us: 10_000 }))) if (++count === 4) break;
      same(text(await create(user({ say: "after" }))), "after");
    },
    stream_error: () =>
      raised(Anthropic.APIError, () => stream(user({ say: kit.SAID, fault: "error_after:3" })).finalMessage()),
    async count_tokens() {
      const counted = await client.messages.countTokens({ model, messages: user({}), tools });
      assert.ok(counted.input_tokens > 0);
    },
    async error_401() {
      const act = () => wrong.messages.create(asked(user({ say: "in" })));
      const error = await raised(Anthropic.AuthenticationError, act);
      same(error.error.error.type, "authentication_error");
    },
    async error_429() {
      const error = await fault(Anthropic.RateLimitError, "status:429:2");
      assert.ok(Number(error.headers.get("retry-after")) >= 1);
      same(error.error.error.type, "rate_limit_error");
    },
    error_500: () => fault(Anthropic.InternalServerError, "status:500"),
    async error_529() {
      const error = await fault(Anthropic.InternalServerError, "status:529");
      same(error.error.error.type, "overloaded_error");
    },
    models: once(async () => {
      const ids = [];
      for await (const { id } of client.models.list()) ids.push(id);
      assert.ok(ids.length && ids.every(Boolean));
    }),
  };
}

await kit.run("anthropic-node", VERSION, { dialect: "messages", make: messages });
