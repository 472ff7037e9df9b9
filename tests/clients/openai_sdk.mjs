// The official OpenAI SDK for Node: Chat Completions, Responses, and what is beside them.
import assert from "node:assert";
import * as kit from "./kit.mjs";
import { has, once, prompt, raised, require, same } from "./kit.mjs";

const OpenAI = require("openai").OpenAI;
const { VERSION } = require("openai/version");
const { zodResponseFormat, zodTextFormat } = require("openai/helpers/zod");
const { z } = require("zod");

const settings = { baseURL: kit.V1, maxRetries: 0, timeout: kit.TIMEOUT_MS };
const client = new OpenAI({ ...settings, apiKey: kit.KEY });
const wrong = new OpenAI({ ...settings, apiKey: kit.WRONG_KEY });
const Place = z.object({ city: z.string(), number: z.number().int() });
const user = (script) => [{ role: "user", content: prompt(script) }];
const AGAIN = { say: "again ", repeat: 500, gap_us: 10_000 };

/** `say` makes a call of the dialect with this script. */
const errors = (say) => ({
  error_401: () => raised(OpenAI.AuthenticationError, () => say(wrong, { say: "in" })),
  error_429: async () => {
    const error = await raised(OpenAI.RateLimitError, () => say(client, { fault: "status:429:2" }));
    assert.ok(Number(error.headers.get("retry-after")) >= 1);
  },
  error_500: () => raised(OpenAI.InternalServerError, () => say(client, { fault: "status:500" })),
  error_529: () => raised(OpenAI.InternalServerError, () => say(client, { fault: "status:529" })),
});

function chat(model) {
  const tools = Object.keys(kit.RESULTS).map((name) => ({
    type: "function",
    function: { name, parameters: kit.SCHEMA },
  }));
  const create = (messages, more) => client.chat.completions.create({ model, messages, ...more });
  const text = async (messages, more) => (await create(messages, more)).choices[0].message.content;
  const results = (message) => [
    message,
    ...message.tool_calls.map((made) => ({
      role: "tool",
      tool_call_id: made.id,
      content: kit.RESULTS[made.function.name],
    })),
  ];
  const inputs = (message) => message.tool_calls.map((made) => JSON.parse(made.function.arguments));
  async function joined(messages) {
    let text = "";
    for await (const chunk of await create(messages, { stream: true })) {
      text += chunk.choices[0]?.delta?.content ?? "";
    }
    return text;
  }

  return {
    async text() {
      const reply = await create(user({ say: kit.SAID }));
      same([reply.choices[0].message.content, reply.choices[0].finish_reason], [kit.SAID, "stop"]);
      assert.ok(reply.usage.completion_tokens > 0);
    },
    async stream() {
      let [text, usage, reason] = [""];
      const more = { stream: true, stream_options: { include_usage: true } };
      for await (const chunk of await create(user({ say: kit.SAID }), more)) {
        usage = chunk.usage ?? usage;
        text += chunk.choices[0]?.delta?.content ?? "";
        reason = chunk.choices[0]?.finish_reason ?? reason;
      }
      same([text, reason], [kit.SAID, "stop"]);
      assert.ok(usage.completion_tokens > 0);
    },
    async tool() {
      const messages = user({ call: kit.call() });
      const { message } = (await create(messages, { tools })).choices[0];
      same(inputs(message), [{ city: "Paris" }]);
      has(await text([...messages, ...results(message)], { tools }), kit.RESULTS.find_city);
    },
    async parallel() {
      const messages = user({ call: kit.TWO_CALLS });
      const { message } = (await create(messages, { tools })).choices[0];
      same(inputs(message), [{ city: "Paris" }, { city: "Oslo" }]);
      has(await text([...messages, ...results(message)], { tools }), ...Object.values(kit.RESULTS));
    },
    async tool_stream() {
      const messages = user({ say: kit.SAID, call: kit.TWO_CALLS });
      const stream = client.chat.completions.stream({ model, messages, tools });
      const { message, finish_reason } = (await stream.finalChatCompletion()).choices[0];
      same([message.content, finish_reason], [kit.SAID, "tool_calls"]);
      same(inputs(message), [{ city: "Paris" }, { city: "Oslo" }]);
      for (const made of message.tool_calls) delete made.function.parsed_arguments;
      delete message.parsed;
      has(await text([...messages, ...results(message)], { tools }), ...Object.values(kit.RESULTS));
    },
    /** The SDK's own loop over tools, streamed. */
    async tool_runner() {
      const run = (name) => ({ function: () => kit.RESULTS[name], parse: JSON.parse });
      const runnable = tools.map((tool) => ({ ...tool, function: { ...tool.function, ...run(tool.function.name) } }));
      const messages = user({ call: kit.TWO_CALLS });
      const runner = client.chat.completions.runTools({ model, messages, tools: runnable, stream: true });
      has(await runner.finalContent(), ...Object.values(kit.RESULTS));
    },
    async thinking() {
      const messages = user({ thinking: kit.THOUGHT, call: kit.call() });
      const more = { tools, reasoning_effort: "high" };
      const { message } = (await create(messages, more)).choices[0];
      same(message.reasoning_content, kit.THOUGHT);
      has(await text([...messages, ...results(message)], more), kit.RESULTS.find_city);
    },
    async image() {
      const content = [
        { type: "text", text: prompt({ see: true }) },
        { type: "image_url", image_url: { url: kit.PNG_URL } },
      ];
      kit.sawImage(await text([{ role: "user", content }]));
    },
    async json() {
      const response_format = zodResponseFormat(Place, "place");
      const reply = await client.chat.completions.parse({ model, messages: user({}), response_format });
      same(reply.choices[0].message.parsed, { city: "Paris", number: 7 });
    },
    async long() {
      kit.sawLong(await text([...kit.history(), ...user({ see: true })]));
    },
    async emoji() {
      same(await joined(user({ say: kit.EMOJI, split_chars: true })), kit.EMOJI);
    },
    async unicode() {
      same(await text(user({ say: kit.UNICODE })), kit.UNICODE);
      const reply = await create(user({ call: kit.call("find_city", kit.UNICODE) }), { tools });
      same(inputs(reply.choices[0].message), [{ city: kit.UNICODE }]);
    },
    async cancel() {
      let count = 0;
      for await (const _ of await create(user(AGAIN), { stream: true })) if (++count === 3) break;
      same(await text(user({ say: "after" })), "after");
    },
    stream_error: () => raised(OpenAI.APIError, () => joined(user({ say: kit.SAID, fault: "error_after:3" }))),
    ...errors((client, script) => client.chat.completions.create({ model, messages: user(script) })),
  };
}

function responses(model) {
  const kind = { type: "function", parameters: kit.SCHEMA, strict: true };
  const tools = Object.keys(kit.RESULTS).map((name) => ({ name, ...kind }));
  const create = (input, more) => client.responses.create({ model, input, ...more });
  const text = async (input, more) => (await create(input, more)).output_text;
  const calls = (reply) => reply.output.filter((item) => item.type === "function_call");
  const inputs = (reply) => calls(reply).map((made) => JSON.parse(made.arguments));
  const results = (reply) =>
    calls(reply).map((made) => ({
      type: "function_call_output",
      call_id: made.call_id,
      output: kit.RESULTS[made.name],
    }));
  const roles = (reply) => JSON.parse(reply.output_text).roles;
  async function joined(input) {
    let text = "";
    for await (const event of await create(input, { stream: true })) {
      if (event.type === "response.output_text.delta") text += event.delta;
      assert.ok(!["error", "response.failed"].includes(event.type), event.type);
    }
    return text;
  }
  async function ended(id) {
    for (let tries = 0; tries < 100; tries++) {
      const kept = await client.responses.retrieve(id);
      if (!["queued", "in_progress"].includes(kept.status)) return kept;
      await new Promise((go) => setTimeout(go, 50));
    }
    assert.fail("not ended after 5 s");
  }

  return {
    async text() {
      const reply = await create(prompt({ say: kit.SAID }));
      same([reply.output_text, reply.status], [kit.SAID, "completed"]);
      assert.ok(reply.usage.output_tokens > 0);
    },
    async stream() {
      same(await joined(prompt({ say: kit.SAID })), kit.SAID);
      const reply = await client.responses.stream({ model, input: prompt({ say: kit.SAID }) }).finalResponse();
      same([reply.output_text, reply.status], [kit.SAID, "completed"]);
    },
    async tool() {
      const input = user({ call: kit.call() });
      const reply = await create(input, { tools });
      same(inputs(reply), [{ city: "Paris" }]);
      has(await text([...input, ...reply.output, ...results(reply)], { tools }), kit.RESULTS.find_city);
    },
    async parallel() {
      const input = user({ call: kit.TWO_CALLS });
      const reply = await create(input, { tools });
      same(inputs(reply), [{ city: "Paris" }, { city: "Oslo" }]);
      has(await text([...input, ...reply.output, ...results(reply)], { tools }), ...Object.values(kit.RESULTS));
    },
    async tool_stream() {
      const input = user({ say: kit.SAID, call: kit.TWO_CALLS });
      const reply = await client.responses.stream({ model, input, tools }).finalResponse();
      same(reply.output_text, kit.SAID);
      same(inputs(reply), [{ city: "Paris" }, { city: "Oslo" }]);
      for (const made of calls(reply)) delete made.parsed_arguments;
      for (const item of reply.output) for (const part of item.content ?? []) delete part.parsed;
      has(await text([...input, ...reply.output, ...results(reply)], { tools }), ...Object.values(kit.RESULTS));
    },
    async thinking() {
      const input = user({ thinking: kit.THOUGHT, call: kit.call() });
      const reasoning = { effort: "high", summary: "auto" };
      const more = { tools, reasoning, store: false, include: ["reasoning.encrypted_content"] };
      const reply = await create(input, more);
      same(reply.output[0].summary[0].text, kit.THOUGHT);
      has(await text([...input, ...reply.output, ...results(reply)], more), kit.RESULTS.find_city);
    },
    async image() {
      const content = [
        { type: "input_text", text: prompt({ see: true }) },
        { type: "input_image", image_url: kit.PNG_URL, detail: "auto" },
      ];
      kit.sawImage(await text([{ role: "user", content }]));
    },
    async json() {
      const format = zodTextFormat(Place, "place");
      const reply = await client.responses.parse({ model, input: prompt({}), text: { format } });
      same(reply.output_parsed, { city: "Paris", number: 7 });
    },
    async long() {
      kit.sawLong(await text([...kit.history(), ...user({ see: true })]));
    },
    async emoji() {
      same(await joined(prompt({ say: kit.EMOJI, split_chars: true })), kit.EMOJI);
    },
    async unicode() {
      same(await text(prompt({ say: kit.UNICODE })), kit.UNICODE);
      const reply = await create(prompt({ call: kit.call("find_city", kit.UNICODE) }), { tools });
      same(inputs(reply), [{ city: kit.UNICODE }]);
    },
    async cancel() {
      let count = 0;
      for await (const _ of await create(prompt(AGAIN), { stream: true })) if (++count === 6) break;
      same(await text(prompt({ say: "after" })), "after");
    },
    /** Either way of telling it will do: an error event or a failed response. */
    stream_error: () => raised(Error, () => joined(prompt({ say: kit.SAID, fault: "error_after:3" }))),
    async store_previous() {
      const first = await create(prompt({ say: kit.SAID }));
      const second = await create(prompt({ see: true }), { previous_response_id: first.id });
      same(roles(second), ["user", "assistant", "user"]);
    },
    async store_previous_tool() {
      const first = await create(prompt({ thinking: kit.THOUGHT, call: kit.TWO_CALLS }), { tools });
      const more = { tools, previous_response_id: first.id };
      has(await text(results(first), more), ...Object.values(kit.RESULTS));
    },
    async store_retrieve() {
      const made = await create(prompt({ say: kit.SAID }));
      same((await client.responses.retrieve(made.id)).output_text, kit.SAID);
    },
    async store_input_items() {
      const made = await create(prompt({ say: kit.SAID }));
      const items = await client.responses.inputItems.list(made.id);
      same(items.data.map((item) => item.role), ["user"]);
    },
    async store_delete() {
      const made = await create(prompt({ say: kit.SAID }));
      await client.responses.delete(made.id);
      await raised(OpenAI.NotFoundError, () => client.responses.retrieve(made.id));
    },
    async store_background() {
      const made = await create(prompt({ say: kit.SAID, first_ms: 300 }), { background: true });
      assert.ok(["queued", "in_progress"].includes(made.status), made.status);
      same((await ended(made.id)).output_text, kit.SAID);
    },
    async store_background_stream() {
      const stream = await create(prompt({ say: kit.SAID }), { background: true, stream: true });
      let first;
      for await (const event of stream) {
        first = event;
        break;
      }
      const asked = { stream: true, starting_after: first.sequence_number };
      const rest = await client.responses.retrieve(first.response.id, asked);
      let said = "";
      for await (const event of rest) if (event.type === "response.output_text.delta") said += event.delta;
      same(said, kit.SAID);
    },
    async store_conversation() {
      const talk = await client.conversations.create({ metadata: { topic: "river" } });
      await create(prompt({ say: kit.SAID }), { conversation: talk.id });
      same(roles(await create(prompt({ see: true }), { conversation: talk.id })), ["user", "assistant", "user"]);
      const items = await client.conversations.items.list(talk.id, { order: "asc" });
      same(items.data.map((item) => item.role), ["user", "assistant", "user", "assistant"]);
      await client.conversations.delete(talk.id);
      await raised(OpenAI.NotFoundError, () => client.conversations.retrieve(talk.id));
    },
    ...errors((client, script) => client.responses.create({ model, input: prompt(script) })),
  };
}

/** Endpoints that do not depend on the upstream. EMBEDDINGS may name the model for embeddings. */
const other = (model) => ({
  models: once(async () => {
    const ids = [];
    for await (const { id } of client.models.list()) ids.push(id);
    assert.ok(ids.length && ids.every(Boolean));
  }),
  embeddings: once(async () => {
    const asked = { model: process.env.EMBEDDINGS ?? model, input: ["one river", "two mills"] };
    const made = (await client.embeddings.create(asked)).data;
    const plain = (await client.embeddings.create({ ...asked, encoding_format: "float" })).data;
    same(made.length, 2);
    made.forEach(({ embedding }, entry) => {
      same(embedding.length, plain[entry].embedding.length);
      embedding.forEach((value, at) => assert.ok(Math.abs(value - plain[entry].embedding[at]) < 1e-6));
    });
  }),
});

await kit.run(
  "openai-node",
  VERSION,
  { dialect: "chat", make: chat },
  { dialect: "responses", make: responses },
  { dialect: "openai", make: other },
);
