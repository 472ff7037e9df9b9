// The official OpenAI SDK through the gateway. Prints a line for each thing that worked.
const assert = require("node:assert");
const OpenAI = require("openai").default ?? require("openai");

const baseURL = process.env.GATEWAY + "/v1";
const client = new OpenAI({ baseURL, apiKey: process.env.KEY });
const user = (content) => [{ role: "user", content }];

async function main() {
  const plain = await client.chat.completions.create({ model: "auto", messages: user("Tell me of rivers."), max_tokens: 50 });
  assert.equal(plain.usage.completion_tokens, 20);
  console.log("ok: plain", plain.model);

  let text = "";
  for await (const chunk of await client.chat.completions.create({ model: "auto", messages: user("Tell me of stones."), stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? "";
    assert.ok(chunk.choices.length > 0, "nobody asked for usage");
  }
  assert.equal(text.trim().split(" ").length, 20);
  console.log("ok: streamed");

  const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
  const messages = user("What is the weather?");
  const asked = await client.chat.completions.create({ model: "auto", messages, tools });
  const call = asked.choices[0].message.tool_calls[0];
  assert.deepEqual(JSON.parse(call.function.arguments), { city: "Paris" });
  messages.push(asked.choices[0].message, { role: "tool", tool_call_id: call.id, content: "sunny" });
  const told = await client.chat.completions.create({ model: "auto", messages, tools });
  assert.match(told.choices[0].message.content, /sunny/);
  console.log("ok: tool call");

  await new OpenAI({ baseURL, apiKey: "sk-wrong" }).models.list().catch((error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError);
    console.log("ok: wrong key", error.code);
  });
  await client.chat.completions.create({ model: "gpt-9", messages: user("Hi") }).catch((error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    console.log("ok: unknown model", error.code);
  });
  const models = await client.models.list();
  assert.ok(models.data.some((model) => model.id === "auto"));
  console.log("ok: models");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
