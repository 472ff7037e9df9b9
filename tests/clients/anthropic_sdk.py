"""The official Anthropic SDK for Python, scenario by scenario."""

import json

import anthropic
import kit
from kit import has, once, prompt, raised, same
from pydantic import BaseModel

client = anthropic.Anthropic(
    base_url=kit.GATEWAY, api_key=kit.KEY, max_retries=0, timeout=kit.TIMEOUT_S
)
wrong = client.with_options(api_key=kit.WRONG_KEY)
THINKING = {"type": "enabled", "budget_tokens": 1024}


class Place(BaseModel):
    city: str
    number: int


def user(text="Do as you are told.", **script):
    return [{"role": "user", "content": prompt(text, **script)}]


def blocks(message, kind):
    return [block for block in message.content if block.type == kind]


def text(message):
    return "".join(block.text for block in blocks(message, "text"))


def results(message, **more):
    """The message with calls, as it goes back, and the results of the calls."""
    answers = [
        {"type": "tool_result", "tool_use_id": use.id, "content": kit.RESULTS[use.name], **more}
        for use in blocks(message, "tool_use")
    ]
    return [
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": answers},
    ]


class Messages:
    dialect = "messages"

    def __init__(self, model):
        self.model = model
        self.tools = [{"name": name, "input_schema": kit.SCHEMA} for name in kit.RESULTS]

    def _call(self, messages, **more):
        return {"model": self.model, "max_tokens": 2000, "messages": messages, **more}

    def _create(self, messages, **more):
        return client.messages.create(**self._call(messages, **more))

    def _streamed(self, messages, **more):
        """The joined text of the stream, and the message it adds up to."""
        with client.messages.stream(**self._call(messages, **more)) as stream:
            return "".join(stream.text_stream), stream.get_final_message()

    def text(self):
        reply = self._create(user(say=kit.SAID))
        same((text(reply), reply.stop_reason), (kit.SAID, "end_turn"))
        assert reply.usage.output_tokens > 0 and reply.usage.input_tokens > 0, reply.usage

    def stream(self):
        joined, reply = self._streamed(user(say=kit.SAID))
        same((joined, text(reply), reply.stop_reason), (kit.SAID, kit.SAID, "end_turn"))
        assert reply.usage.output_tokens > 0 and reply.usage.input_tokens > 0, reply.usage

    def system(self):
        reply = self._create(user(see=True), system=[{"type": "text", "text": "Be brief."}])
        has(json.loads(text(reply))["system"], "Be brief.")

    def length(self):
        same(self._create(user(output_tokens=40), max_tokens=20).stop_reason, "max_tokens")

    def tool(self):
        messages = user(call=kit.call())
        reply = self._create(messages, tools=self.tools)
        same(reply.stop_reason, "tool_use")
        same(blocks(reply, "tool_use")[0].input, {"city": "Paris"})
        messages += results(reply)
        has(text(self._create(messages, tools=self.tools)), kit.RESULTS["find_city"])

    def tool_error(self):
        messages = user(call=kit.call())
        messages += results(self._create(messages, tools=self.tools), is_error=True)
        has(text(self._create(messages, tools=self.tools)), kit.RESULTS["find_city"])

    def tool_image(self):
        """The result is an image: an upstream without a place for that says so in words."""
        messages = user(call=kit.call())
        messages += results(self._create(messages, tools=self.tools))
        source = {"type": "base64", "media_type": "image/png", "data": kit.PNG_BASE64}
        told = [{"type": "text", "text": "A map:"}, {"type": "image", "source": source}]
        messages[-1]["content"][0]["content"] = told
        has(text(self._create(messages, tools=self.tools)), "A map:")

    def parallel(self):
        messages = user(call=kit.TWO_CALLS)
        reply = self._create(messages, tools=self.tools)
        same([use.name for use in blocks(reply, "tool_use")], list(kit.RESULTS))
        messages += results(reply)
        has(text(self._create(messages, tools=self.tools)), *kit.RESULTS.values())

    def tool_stream(self):
        messages = user(say=kit.SAID, call=kit.TWO_CALLS)
        joined, reply = self._streamed(messages, tools=self.tools)
        same((joined, reply.stop_reason), (kit.SAID, "tool_use"))
        inputs = [use.input for use in blocks(reply, "tool_use")]
        same(inputs, [{"city": "Paris"}, {"city": "Oslo"}])
        messages += results(reply)
        has(self._streamed(messages, tools=self.tools)[0], *kit.RESULTS.values())

    def thinking(self):
        messages = user(thinking=kit.THOUGHT, call=kit.call())
        more = {"tools": self.tools, "thinking": THINKING}
        reply = self._create(messages, **more)
        block = reply.content[0]
        same((block.type, block.thinking), ("thinking", kit.THOUGHT))
        assert isinstance(block.signature, str), block
        messages += results(reply)
        has(text(self._create(messages, **more)), kit.RESULTS["find_city"])

    def thinking_stream(self):
        messages = user(thinking=kit.THOUGHT, call=kit.call())
        more = {"tools": self.tools, "thinking": THINKING}
        _, reply = self._streamed(messages, **more)
        same(reply.content[0].thinking, kit.THOUGHT)
        messages += results(reply)
        has(self._streamed(messages, **more)[0], kit.RESULTS["find_city"])

    def image(self):
        source = {"type": "base64", "media_type": "image/png", "data": kit.PNG_BASE64}
        content = [{"type": "image", "source": source}, {"type": "text", "text": prompt(see=True)}]
        kit.saw_image(text(self._create([{"role": "user", "content": content}])))

    def json(self):
        reply = client.messages.parse(**self._call(user()), output_format=Place)
        same(reply.parsed_output, Place(city="Paris", number=7))

    def cache_control(self):
        """Marks for the prompt cache, which most upstreams do not know, get in nobody's way."""
        mark = {"cache_control": {"type": "ephemeral"}}
        content = [{"type": "text", "text": prompt(say=kit.SAID), **mark}]
        system = [{"type": "text", "text": "Be brief.", **mark}]
        reply = self._create([{"role": "user", "content": content}], system=system)
        same(text(reply), kit.SAID)

    def long(self):
        kit.saw_long(text(self._create(kit.history() + user(see=True))))

    def emoji(self):
        same(self._streamed(user(say=kit.EMOJI, split_chars=True))[0], kit.EMOJI)

    def unicode(self):
        same(text(self._create(user(say=kit.UNICODE))), kit.UNICODE)
        reply = self._create(user(call=kit.call(city=kit.UNICODE)), tools=self.tools)
        same(blocks(reply, "tool_use")[0].input, {"city": kit.UNICODE})

    def cancel(self):
        call = self._call(user(say="again ", repeat=500, gap_us=10_000))
        with client.messages.stream(**call) as stream:
            for _ in range(3):
                next(stream.text_stream)
        same(text(self._create(user(say="after"))), "after")

    def stream_error(self):
        fault = user(say=kit.SAID, fault="error_after:3")
        raised(anthropic.APIError, lambda: self._streamed(fault))

    def count_tokens(self):
        counted = client.messages.count_tokens(
            model=self.model, messages=user(), system="Be brief.", tools=self.tools
        )
        assert counted.input_tokens > 0, counted

    def error_401(self):
        call = self._call(user(say="in"))
        error = raised(anthropic.AuthenticationError, lambda: wrong.messages.create(**call))
        same(error.body["error"]["type"], "authentication_error")

    def error_429(self):
        fault = user(fault="status:429:2")
        error = raised(anthropic.RateLimitError, lambda: self._create(fault))
        assert float(error.response.headers["retry-after"]) >= 1
        same(error.body["error"]["type"], "rate_limit_error")

    def error_500(self):
        fault = user(fault="status:500")
        raised(anthropic.InternalServerError, lambda: self._create(fault))

    def error_529(self):
        fault = user(fault="status:529")
        raised(anthropic.OverloadedError, lambda: self._create(fault))

    @once
    def models(self):
        ids = [model.id for model in client.models.list()]
        assert ids and all(ids), ids


kit.run("anthropic-py", anthropic.__version__, Messages)
