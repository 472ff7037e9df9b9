// The Vercel AI SDK with its providers for OpenAI (Chat Completions and Responses), for compatible
// endpoints (Chat Completions with reasoning) and for Anthropic.
import assert from "node:assert";
import * as kit from "./kit.mjs";
import { has, prompt, raised, require, same } from "./kit.mjs";

const { APICallError, generateText, Output, stepCountIs, streamText, tool } = require("ai");
const { createOpenAI } = require("@ai-sdk/openai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const { createAnthropic } = require("@ai-sdk/anthropic");
const { z } = require("zod");

globalThis.AI_SDK_LOG_WARNINGS = false;

const city = z.object({ city: z.string() });
const tools = Object.fromEntries(
  Object.entries(kit.RESULTS).map(([name, result]) => [
    name,
    tool({ description: name, inputSchema: city, execute: async () => result }),
  ]),
);
tools.find_none = tool({
  description: "find_none",
  inputSchema: city,
  execute: async ({ city }) => {
    throw new Error(`no city ${city}`);
  },
});
const Place = z.object({ city: z.string(), number: z.number().int() });

/** `model(key)` makes a model of the dialect, `plain` are its options, `thinking` those that make it think. */
function scenarios(model, plain, thinking = plain) {
  const settings = (script) => ({
    model: model(kit.KEY),
    prompt: prompt(script),
    maxRetries: 0,
    maxOutputTokens: 2000,
    providerOptions: script.thinking ? thinking : plain,
  });
  const ask = (script, more) => generateText({ ...settings(script), ...more });
  const loop = (script) => ask(script, { tools, stopWhen: stepCountIs(3) });
  const stream = (script, more) => streamText({ ...settings(script), onError: () => {}, ...more });
  async function streamLoop(script) {
    let failure;
    const onError = ({ error }) => (failure = error);
    const steps = await stream(script, { tools, stopWhen: stepCountIs(3), onError }).steps;
    if (failure) throw failure;
    return steps;
  }
  const user = (content) => [{ role: "user", content }];
  const fault = async (status, script, more) => {
    const error = await raised(APICallError, () => ask(script, more));
    assert.ok(status === "5xx" ? error.statusCode >= 500 : error.statusCode === status, `${error.statusCode}`);
    return error;
  };

  return {
    async text() {
      const reply = await ask({ say: kit.SAID });
      same([reply.text, reply.finishReason], [kit.SAID, "stop"]);
      assert.ok(reply.usage.outputTokens > 0);
    },
    async stream() {
      const running = stream({ say: kit.SAID });
      let joined = "";
      for await (const piece of running.textStream) joined += piece;
      same([joined, await running.finishReason], [kit.SAID, "stop"]);
      assert.ok((await running.usage).outputTokens > 0);
    },
    async system() {
      has(JSON.parse((await ask({ see: true }, { system: "Be brief." })).text).system, "Be brief.");
    },
    async tool() {
      has((await loop({ call: kit.call() })).text, kit.RESULTS.find_city);
    },
    async tool_error() {
      has((await loop({ call: kit.call("find_none") })).text, "no city Paris");
    },
    async parallel() {
      has((await loop({ call: kit.TWO_CALLS })).text, ...Object.values(kit.RESULTS));
    },
    async tool_stream() {
      const steps = await streamLoop({ say: kit.SAID, call: kit.TWO_CALLS });
      same(steps[0].text, kit.SAID);
      same(steps[0].toolCalls.map((made) => made.input), [{ city: "Paris" }, { city: "Oslo" }]);
      has(steps.at(-1).text, ...Object.values(kit.RESULTS));
    },
    async thinking() {
      const { steps, text } = await loop({ thinking: kit.THOUGHT, call: kit.call() });
      same(steps[0].reasoningText, kit.THOUGHT);
      has(text, kit.RESULTS.find_city);
    },
    async thinking_stream() {
      const steps = await streamLoop({ thinking: kit.THOUGHT, call: kit.call() });
      same(steps[0].reasoningText, kit.THOUGHT);
      has(steps.at(-1).text, kit.RESULTS.find_city);
    },
    async image() {
      const content = [
        { type: "text", text: prompt({ see: true }) },
        { type: "image", image: kit.PNG, mediaType: "image/png" },
      ];
      kit.sawImage((await ask({}, { prompt: undefined, messages: user(content) })).text);
    },
    async json() {
      const reply = await ask({}, { output: Output.object({ schema: Place }) });
      same(reply.output, { city: "Paris", number: 7 });
    },
    async long() {
      const messages = [...kit.history(), ...user(prompt({ see: true }))];
      kit.sawLong((await ask({}, { prompt: undefined, messages })).text);
    },
    async emoji() {
      same(await stream({ say: kit.EMOJI, split_chars: true }).text, kit.EMOJI);
    },
    async unicode() {
      same((await ask({ say: kit.UNICODE })).text, kit.UNICODE);
    },
    async cancel() {
      const stop = new AbortController();
      const running = stream({ say: "again ", repeat: 500, gap_us: 10_000 }, { abortSignal: stop.signal });
      let count = 0;
      for await (const part of running.fullStream) {
        if (part.type === "error") throw part.error;
        if (part.type === "text-delta" && ++count === 3) stop.abort();
      }
      assert.ok(count >= 3 && count < 500, `${count} pieces came`);
      same((await ask({ say: "after" })).text, "after");
    },
    async stream_error() {
      // Told as a part of the stream or thrown behind it, but never a finish.
      const parts = [];
      try {
        for await (const part of stream({ say: kit.SAID, fault: "error_after:3" }).fullStream) parts.push(part.type);
      } catch {
        parts.push("error");
      }
      assert.ok(parts.includes("error"), parts.join(" "));
    },
    error_401: () => fault(401, { say: "in" }, { model: model(kit.WRONG_KEY) }),
    async error_429() {
      const error = await fault(429, { fault: "status:429:2" });
      assert.ok(Number(error.responseHeaders["retry-after"]) >= 1);
      assert.ok(error.message.length > 3 && error.data?.error?.message, "the error's body was not understood");
    },
    error_500: () => fault("5xx", { fault: "status:500" }),
    error_529: () => fault("5xx", { fault: "status:529" }),
  };
}

const openai = (apiKey) => createOpenAI({ baseURL: kit.V1, apiKey });

function chat(model) {
  // This provider does not read `reasoning_content`; `compatible` does.
  const { thinking, thinking_stream, ...rest } = scenarios((key) => openai(key).chat(model));
  return rest;
}

function compatible(model) {
  const settings = { name: "gateway", baseURL: kit.V1, includeUsage: true, supportsStructuredOutputs: true };
  return scenarios((apiKey) => createOpenAICompatible({ ...settings, apiKey }).chatModel(model));
}

function responses(model) {
  // What it knows by the names of OpenAI's models is forced.
  const thinks = { forceReasoning: true, reasoningEffort: "high", reasoningSummary: "auto" };
  const make = (key) => openai(key).responses(model);
  const options = { openai: { ...thinks, store: false } };
  return {
    ...scenarios(make, options),
    /** By default the SDK sends references to stored items instead of the items. */
    async store_references() {
      const settings = { model: make(kit.KEY), maxRetries: 0, tools, stopWhen: stepCountIs(3) };
      const asked = { thinking: kit.THOUGHT, say: kit.SAID, call: kit.TWO_CALLS };
      const { text } = await generateText({ ...settings, prompt: prompt(asked), providerOptions: { openai: thinks } });
      has(text, ...Object.values(kit.RESULTS));
    },
    async store_previous() {
      const settings = { model: make(kit.KEY), maxRetries: 0 };
      const first = await generateText({ ...settings, prompt: prompt({ say: kit.SAID }) });
      const previousResponseId = first.providerMetadata.openai.responseId;
      const providerOptions = { openai: { previousResponseId } };
      const second = await generateText({ ...settings, prompt: prompt({ see: true }), providerOptions });
      same(JSON.parse(second.text).roles, ["user", "assistant", "user"]);
    },
  };
}

function messages(model) {
  const make = (apiKey) => createAnthropic({ baseURL: kit.V1, apiKey })(model);
  // By the names of Anthropic's models it knows which can do structured output.
  const plain = { anthropic: { structuredOutputMode: "outputFormat" } };
  const thinking = { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } } };
  return {
    ...scenarios(make, plain, thinking),
    /** The structure as the arguments of a tool that must be called. */
    async json_tool() {
      const wanted = { name: "json", arguments: { city: "Oslo", number: 3 } };
      const settings = { model: make(kit.KEY), maxRetries: 0, prompt: prompt({ call: wanted }) };
      const providerOptions = { anthropic: { structuredOutputMode: "jsonTool" } };
      const output = Output.object({ schema: Place });
      same((await generateText({ ...settings, output, providerOptions })).output, wanted.arguments);
    },
  };
}

const names = ["ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "@ai-sdk/anthropic"];
const versions = names.map((name) => `${name} ${require(`${name}/package.json`).version}`);
await kit.run(
  "ai-sdk",
  versions.join(", "),
  { dialect: "chat", make: chat },
  { client: "ai-sdk-compatible", dialect: "chat", make: compatible },
  { dialect: "responses", make: responses },
  { dialect: "messages", make: messages },
);
