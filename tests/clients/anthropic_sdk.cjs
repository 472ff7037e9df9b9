// The official Anthropic SDK through the gateway. Prints a line for each thing that worked.
const assert = require("node:assert");
const Anthropic = require("@anthropic-ai/sdk").default ?? require("@anthropic-ai/sdk");

const baseURL = process.env.GATEWAY;
const client = new Anthropic({ baseURL, apiKey: process.env.KEY });
const user = (content) => [{ role: "user", content }];
const call = (text, more) => ({ model: "auto", max_tokens: 50, messages: user(text), ...more });

async function main() {
  const plain = await client.messages.create(call("Tell me of rivers."));
  assert.equal(plain.usage.output_tokens, 20);
  console.log("ok: plain", plain.model);

  const streamed = await client.messages.stream(call("Tell me of stones.")).finalMessage();
  assert.equal(streamed.content[0].text.trim().split(" ").length, 20);
  assert.equal(streamed.usage.output_tokens, 20);
  console.log("ok: streamed");

  const input_schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const tools = [{ name: "get_weather", input_schema }];
  const asked = await client.messages.stream(call("What is the weather?", { tools })).finalMessage();
  const use = asked.content[0];
  assert.deepEqual(use.input, { city: "Paris" });
  const messages = [
    ...user("What is the weather?"),
    { role: "assistant", content: [{ type: "tool_use", id: use.id, name: use.name, input: use.input }] },
    { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "sunny" }] },
  ];
  const told = await client.messages.create(call("", { messages, tools }));
  assert.match(told.content[0].text, /sunny/);
  console.log("ok: tool call");

  await new Anthropic({ baseURL, apiKey: "sk-wrong" }).models.list().then(
    () => assert.fail("it was let in"),
    (error) => {
      assert.ok(error instanceof Anthropic.AuthenticationError);
      console.log("ok: wrong key", error.status);
    },
  );
  await client.messages.create(call("Hi", { model: "claude-9" })).catch((error) => {
    assert.ok(error instanceof Anthropic.NotFoundError);
    console.log("ok: unknown model", error.status);
  });
  const models = await client.models.list();
  assert.ok(models.data.some((model) => model.id === "auto"));
  console.log("ok: models");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
