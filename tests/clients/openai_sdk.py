"""The official OpenAI SDK through the gateway. Prints a line for each thing that worked."""

import json
import os

import openai

client = openai.OpenAI(base_url=os.environ["GATEWAY"] + "/v1", api_key=os.environ["KEY"])
user = lambda text: [{"role": "user", "content": text}]

reply = client.chat.completions.create(model="auto", messages=user("Tell me of rivers."), max_tokens=50)
assert reply.choices[0].message.content and reply.usage.completion_tokens == 20, reply
print("ok: plain", reply.model)

text, usage = "", None
options = {"include_usage": True}
for chunk in client.chat.completions.create(
    model="auto", messages=user("Tell me of stones."), stream=True, stream_options=options
):
    text += chunk.choices[0].delta.content or "" if chunk.choices else ""
    usage = chunk.usage or usage
assert len(text.split()) == 20 and usage.completion_tokens == 20, (text, usage)
print("ok: streamed")

tool = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
messages = user("What is the weather?")
with client.chat.completions.stream(model="auto", messages=messages, tools=[tool]) as stream:
    answer = stream.get_final_completion().choices[0].message
call = answer.tool_calls[0]
assert json.loads(call.function.arguments) == {"city": "Paris"}, call
messages += [answer.model_dump(exclude_none=True, exclude={"parsed"}),
             {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
for made in messages[1].get("tool_calls", []):
    made["function"].pop("parsed_arguments", None)
reply = client.chat.completions.create(model="auto", messages=messages, tools=[tool])
assert "sunny" in reply.choices[0].message.content, reply
print("ok: tool call")

try:
    openai.OpenAI(base_url=os.environ["GATEWAY"] + "/v1", api_key="sk-wrong").models.list()
except openai.AuthenticationError as error:
    print("ok: wrong key", error.code)
try:
    client.chat.completions.create(model="gpt-9", messages=user("Hi"))
except openai.NotFoundError as error:
    print("ok: unknown model", error.code)
assert "auto" in [model.id for model in client.models.list()]
print("ok: models")
