"""LiteLLM as a client library: Chat Completions, Responses and Anthropic's Messages."""

import gc
import json
import os
from importlib.metadata import version

# Without it the price list is fetched from the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import kit
import litellm
from kit import has, prompt, raised, same
from pydantic import BaseModel

# It leaves streams to the collector, which then closes one while httpcore holds its lock, and waits
# for itself: without the collector the streams live until the end.
gc.disable()

litellm.suppress_debug_info = True
litellm.telemetry = False


class Place(BaseModel):
    city: str
    number: int


def user(text="Do as you are told.", **script):
    return [{"role": "user", "content": prompt(text, **script)}]


class Scenarios:
    """The library's own interface is that of Chat Completions, whatever the dialect on the wire.
    A dialect adds `_call`, the arguments of a call."""

    _thinking = {}

    def __init__(self, model):
        self.model = model
        tool = lambda name: {"type": "function", "function": {"name": name, "parameters": kit.SCHEMA}}
        self.tools = [tool(name) for name in kit.RESULTS]

    def _create(self, messages, **more):
        settings = {"api_key": kit.KEY, "num_retries": 0, "max_retries": 0, "timeout": kit.TIMEOUT_S}
        return litellm.completion(messages=messages, **self._call() | settings | more)

    def _text(self, messages, **more):
        return self._create(messages, **more).choices[0].message.content

    def _streamed(self, messages, **more):
        """The message that the stream adds up to."""
        chunks = list(self._create(messages, stream=True, **more))
        return litellm.stream_chunk_builder(chunks, messages=messages).choices[0].message

    def _results(self, message):
        answer = lambda call: kit.RESULTS[call.function.name]
        return [message] + [
            {"role": "tool", "tool_call_id": call.id, "content": answer(call)}
            for call in message.tool_calls
        ]

    def _arguments(self, message):
        return [json.loads(call.function.arguments) for call in message.tool_calls]

    def text(self):
        reply = self._create(user(say=kit.SAID))
        same(reply.choices[0].message.content, kit.SAID)
        assert reply.usage.completion_tokens > 0, reply.usage

    def stream(self):
        same(self._streamed(user(say=kit.SAID)).content, kit.SAID)

    def system(self):
        messages = [{"role": "system", "content": "Be brief."}] + user(see=True)
        has(json.loads(self._text(messages))["system"], "Be brief.")

    def tool(self):
        messages = user(call=kit.call())
        message = self._create(messages, tools=self.tools).choices[0].message
        same(self._arguments(message), [{"city": "Paris"}])
        messages += self._results(message)
        has(self._text(messages, tools=self.tools), kit.RESULTS["find_city"])

    def parallel(self):
        messages = user(call=kit.TWO_CALLS)
        message = self._create(messages, tools=self.tools).choices[0].message
        same(self._arguments(message), [{"city": "Paris"}, {"city": "Oslo"}])
        messages += self._results(message)
        has(self._text(messages, tools=self.tools), *kit.RESULTS.values())

    def tool_stream(self):
        messages = user(say=kit.SAID, call=kit.TWO_CALLS)
        message = self._streamed(messages, tools=self.tools)
        same((message.content, self._arguments(message)), (kit.SAID, [{"city": "Paris"}, {"city": "Oslo"}]))
        messages += self._results(message)
        has(self._streamed(messages, tools=self.tools).content, *kit.RESULTS.values())

    def thinking(self):
        messages = user(thinking=kit.THOUGHT, call=kit.call())
        more = {"tools": self.tools, **self._thinking}
        message = self._create(messages, **more).choices[0].message
        same(message.reasoning_content, kit.THOUGHT)
        messages += self._results(message)
        has(self._text(messages, **more), kit.RESULTS["find_city"])

    def thinking_stream(self):
        messages = user(thinking=kit.THOUGHT, call=kit.call())
        more = {"tools": self.tools, **self._thinking}
        message = self._streamed(messages, **more)
        same(message.reasoning_content, kit.THOUGHT)
        messages += self._results(message)
        has(self._streamed(messages, **more).content, kit.RESULTS["find_city"])

    def image(self):
        content = [
            {"type": "text", "text": prompt(see=True)},
            {"type": "image_url", "image_url": {"url": kit.PNG_URL}},
        ]
        kit.saw_image(self._text([{"role": "user", "content": content}]))

    def json(self):
        # For models of Anthropic that it does not know it makes the shape a tool.
        wanted = {"name": "json_tool_call", "arguments": {"city": "Paris", "number": 7}}
        text = self._text(user(call=wanted), response_format=Place)
        same(Place.model_validate_json(text), Place(city="Paris", number=7))

    def long(self):
        kit.saw_long(self._text(kit.history() + user(see=True)))

    def emoji(self):
        same(self._streamed(user(say=kit.EMOJI, split_chars=True)).content, kit.EMOJI)

    def unicode(self):
        same(self._text(user(say=kit.UNICODE)), kit.UNICODE)

    def cancel(self):
        stream = self._create(user(say="again ", repeat=500, gap_us=10_000), stream=True)
        for _ in range(3):
            next(stream)
        del stream
        same(self._text(user(say="after")), "after")

    def error_401(self):
        ask = lambda: self._create(user(say="in"), api_key=kit.WRONG_KEY)
        raised(litellm.AuthenticationError, ask)

    def error_429(self):
        error = raised(litellm.RateLimitError, lambda: self._text(user(fault="status:429:2")))
        assert float(error.litellm_response_headers["retry-after"]) >= 1

    def error_500(self):
        raised(litellm.InternalServerError, lambda: self._text(user(fault="status:500")))

    def error_529(self):
        error = raised(Exception, lambda: self._text(user(fault="status:529")))
        assert error.status_code >= 500, error


class Chat(Scenarios):
    dialect = "chat"

    def _call(self):
        return {"model": f"openai/{self.model}", "api_base": kit.V1}


class Messages(Scenarios):
    dialect = "messages"
    _thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000}
    _thinking |= {"allowed_openai_params": ["thinking"]}

    def _call(self):
        return {"model": f"anthropic/{self.model}", "api_base": kit.GATEWAY}


class Responses:
    dialect = "responses"

    def __init__(self, model):
        self.model = f"openai/{model}"
        kind = {"type": "function", "parameters": kit.SCHEMA, "strict": True}
        self.tools = [{"name": name, **kind} for name in kit.RESULTS]

    def _create(self, input, **more):
        settings = {"api_base": kit.V1, "api_key": kit.KEY, "num_retries": 0, "timeout": kit.TIMEOUT_S}
        return litellm.responses(model=self.model, input=input, **settings | more)

    def _text(self, reply):
        parts = [part for item in reply.output if item.type == "message" for part in item.content]
        return "".join(part.text for part in parts)

    def text(self):
        same(self._text(self._create(prompt(say=kit.SAID))), kit.SAID)

    def stream(self):
        events = self._create(prompt(say=kit.SAID), stream=True)
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        same("".join(deltas), kit.SAID)

    def tool(self):
        input = user(call=kit.TWO_CALLS)
        reply = self._create(input, tools=self.tools)
        calls = [item for item in reply.output if item.type == "function_call"]
        input += [item.model_dump(exclude_none=True) for item in reply.output] + [
            {"type": "function_call_output", "call_id": c.call_id, "output": kit.RESULTS[c.name]}
            for c in calls
        ]
        has(self._text(self._create(input, tools=self.tools)), *kit.RESULTS.values())

    def error_429(self):
        raised(litellm.RateLimitError, lambda: self._create(prompt(fault="status:429:2")))


kit.run("litellm", version("litellm"), Chat, Responses, Messages)
