"""The official Anthropic SDK through the gateway. Prints a line for each thing that worked."""

import os

import anthropic

client = anthropic.Anthropic(base_url=os.environ["GATEWAY"], api_key=os.environ["KEY"])
user = lambda text: [{"role": "user", "content": text}]

reply = client.messages.create(model="auto", max_tokens=50, messages=user("Tell me of rivers."))
assert reply.content[0].text and reply.usage.output_tokens == 20, reply
print("ok: plain", reply.model)

with client.messages.stream(model="auto", max_tokens=50, messages=user("Tell me of stones.")) as stream:
    text = "".join(stream.text_stream)
    usage = stream.get_final_message().usage
assert len(text.split()) == 20 and usage.output_tokens == 20, (text, usage)
print("ok: streamed")

tool = {"name": "get_weather", "input_schema": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
messages = user("What is the weather?")
with client.messages.stream(model="auto", max_tokens=50, messages=messages, tools=[tool]) as stream:
    answer = stream.get_final_message()
call = answer.content[0]
assert call.type == "tool_use" and call.input == {"city": "Paris"}, answer
messages += [
    {"role": "assistant", "content": [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}]},
    {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]},
]
reply = client.messages.create(model="auto", max_tokens=50, messages=messages, tools=[tool])
assert "sunny" in reply.content[0].text, reply
print("ok: tool call")

try:
    anthropic.Anthropic(base_url=os.environ["GATEWAY"], api_key="sk-wrong").models.list()
except anthropic.AuthenticationError as error:
    print("ok: wrong key", error.status_code)
try:
    client.messages.create(model="claude-9", max_tokens=5, messages=user("Hi"))
except anthropic.NotFoundError as error:
    print("ok: unknown model", error.status_code)
assert "auto" in [model.id for model in client.models.list()]
print("ok: models")
