"""The official OpenAI SDK for Python: Chat Completions, Responses, and what is beside them."""

import json
import os
import time

import kit
import openai
from kit import V1, has, once, prompt, raised, same
from pydantic import BaseModel

client = openai.OpenAI(base_url=V1, api_key=kit.KEY, max_retries=0, timeout=kit.TIMEOUT_S)
wrong = client.with_options(api_key=kit.WRONG_KEY)


class Place(BaseModel):
    city: str
    number: int


def user(text="Do as you are told.", **script):
    return [{"role": "user", "content": prompt(text, **script)}]


class Errors:
    """`_say` makes a call of the dialect with this script."""

    def error_401(self):
        error = raised(openai.AuthenticationError, lambda: self._say(wrong, say="in"))
        same(error.status_code, 401)

    def error_429(self):
        fault = "status:429:2"
        error = raised(openai.RateLimitError, lambda: self._say(client, fault=fault))
        assert float(error.response.headers["retry-after"]) >= 1

    def error_500(self):
        raised(openai.InternalServerError, lambda: self._say(client, fault="status:500"))

    def error_529(self):
        raised(openai.InternalServerError, lambda: self._say(client, fault="status:529"))


class Chat(Errors):
    dialect = "chat"

    def __init__(self, model):
        self.model = model
        tool = lambda name: {"type": "function", "function": {"name": name, "parameters": kit.SCHEMA}}
        self.tools = [tool(name) for name in kit.RESULTS]

    def _create(self, messages, **more):
        return client.chat.completions.create(model=self.model, messages=messages, **more)

    def _say(self, client, **script):
        return client.chat.completions.create(model=self.model, messages=user(**script))

    def _text(self, messages, **more):
        return self._create(messages, **more).choices[0].message.content

    def _joined(self, messages):
        chunks = self._create(messages, stream=True)
        return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)

    def _results(self, message):
        """The message with calls, as it goes back, and the result of each call."""
        returned = message.model_dump(exclude_none=True, exclude={"parsed"})
        for made in returned["tool_calls"]:
            made["function"].pop("parsed_arguments", None)
            made.pop("index", None)
        answer = lambda call: kit.RESULTS[call.function.name]
        return [returned] + [
            {"role": "tool", "tool_call_id": call.id, "content": answer(call)}
            for call in message.tool_calls
        ]

    def text(self):
        reply = self._create(user(say=kit.SAID))
        same(reply.choices[0].message.content, kit.SAID)
        same(reply.choices[0].finish_reason, "stop")
        assert reply.usage.completion_tokens > 0 and reply.usage.prompt_tokens > 0, reply.usage

    def stream(self):
        text, usage, reason = "", None, None
        options = {"include_usage": True}
        for chunk in self._create(user(say=kit.SAID), stream=True, stream_options=options):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
        same((text, reason), (kit.SAID, "stop"))
        assert usage.completion_tokens > 0, usage

    def stream_without_usage(self):
        for chunk in self._create(user(say=kit.SAID), stream=True):
            assert chunk.choices, "nobody asked for usage"

    def system(self):
        messages = [{"role": "system", "content": "Be brief."}] + user(see=True)
        has(json.loads(self._text(messages))["system"], "Be brief.")

    def length(self):
        reply = self._create(user(output_tokens=40), max_tokens=20)
        same(reply.choices[0].finish_reason, "length")

    def tool(self):
        messages = user(call=kit.call())
        message = self._create(messages, tools=self.tools).choices[0].message
        same(json.loads(message.tool_calls[0].function.arguments), {"city": "Paris"})
        messages += self._results(message)
        has(self._text(messages, tools=self.tools), kit.RESULTS["find_city"])

    def parallel(self):
        messages = user(call=kit.TWO_CALLS)
        message = self._create(messages, tools=self.tools).choices[0].message
        same([call.function.name for call in message.tool_calls], list(kit.RESULTS))
        messages += self._results(message)
        has(self._text(messages, tools=self.tools), *kit.RESULTS.values())

    def tool_stream(self):
        messages = user(say=kit.SAID, call=kit.TWO_CALLS)
        with client.chat.completions.stream(
            model=self.model, messages=messages, tools=self.tools
        ) as stream:
            choice = stream.get_final_completion().choices[0]
        same((choice.message.content, choice.finish_reason), (kit.SAID, "tool_calls"))
        arguments = [json.loads(call.function.arguments) for call in choice.message.tool_calls]
        same(arguments, [{"city": "Paris"}, {"city": "Oslo"}])
        messages += self._results(choice.message)
        has(self._text(messages, tools=self.tools), *kit.RESULTS.values())

    def tool_choice(self):
        named = {"type": "function", "function": {"name": "find_city"}}
        for choice in ("required", named):
            reply = self._create(user(call=kit.call()), tools=self.tools, tool_choice=choice)
            same(reply.choices[0].message.tool_calls[0].function.name, "find_city")

    def thinking(self):
        messages = user(thinking=kit.THOUGHT, call=kit.call())
        message = self._create(messages, tools=self.tools, reasoning_effort="high").choices[0].message
        same(message.model_extra["reasoning_content"], kit.THOUGHT)
        messages += self._results(message)
        answer = self._create(messages, tools=self.tools, reasoning_effort="high")
        has(answer.choices[0].message.content, kit.RESULTS["find_city"])

    def thinking_stream(self):
        thought, text = "", ""
        for chunk in self._create(user(thinking=kit.THOUGHT, say=kit.SAID), stream=True):
            delta = chunk.choices[0].delta
            thought += (delta.model_extra or {}).get("reasoning_content") or ""
            text += delta.content or ""
        same((thought, text), (kit.THOUGHT, kit.SAID))

    def image(self):
        content = [
            {"type": "text", "text": prompt(see=True)},
            {"type": "image_url", "image_url": {"url": kit.PNG_URL}},
        ]
        kit.saw_image(self._text([{"role": "user", "content": content}]))

    def json(self):
        reply = client.chat.completions.parse(
            model=self.model, messages=user(), response_format=Place
        )
        same(reply.choices[0].message.parsed, Place(city="Paris", number=7))

    def long(self):
        kit.saw_long(self._text(kit.history() + user(see=True)))

    def emoji(self):
        same(self._joined(user(say=kit.EMOJI, split_chars=True)), kit.EMOJI)

    def unicode(self):
        same(self._text(user(say=kit.UNICODE)), kit.UNICODE)
        messages = user(call=kit.call(city=kit.UNICODE))
        call = self._create(messages, tools=self.tools).choices[0].message.tool_calls[0]
        same(json.loads(call.function.arguments), {"city": kit.UNICODE})

    def cancel(self):
        stream = self._create(user(say="again ", repeat=500, gap_us=10_000), stream=True)
        for _ in range(3):
            next(stream)
        stream.close()
        same(self._text(user(say="after")), "after")

    def stream_error(self):
        raised(openai.APIError, lambda: self._joined(user(say=kit.SAID, fault="error_after:3")))


class Responses(Errors):
    dialect = "responses"

    def __init__(self, model):
        self.model = model
        kind = {"type": "function", "parameters": kit.SCHEMA, "strict": True}
        self.tools = [{"name": name, **kind} for name in kit.RESULTS]

    def _create(self, input, **more):
        return client.responses.create(model=self.model, input=input, **more)

    def _say(self, client, **script):
        return client.responses.create(model=self.model, input=user(**script))

    def _calls(self, response):
        return [item for item in response.output if item.type == "function_call"]

    def _results(self, response):
        return [
            {"type": "function_call_output", "call_id": c.call_id, "output": kit.RESULTS[c.name]}
            for c in self._calls(response)
        ]

    def _roles(self, response):
        return json.loads(response.output_text)["roles"]

    def text(self):
        reply = self._create(prompt(say=kit.SAID))
        same((reply.output_text, reply.status), (kit.SAID, "completed"))
        assert reply.usage.output_tokens > 0 and reply.usage.input_tokens > 0, reply.usage

    def stream(self):
        text, numbers = "", []
        with client.responses.stream(model=self.model, input=prompt(say=kit.SAID)) as stream:
            for event in stream:
                numbers.append(event.sequence_number)
                if event.type == "response.output_text.delta":
                    text += event.delta
            last = stream.get_final_response()
        same((text, last.output_text, last.status), (kit.SAID, kit.SAID, "completed"))
        same(numbers, sorted(set(numbers)))
        assert last.usage.output_tokens > 0, last.usage

    def system(self):
        reply = self._create(prompt(see=True), instructions="Be brief.")
        has(json.loads(reply.output_text)["system"], "Be brief.")

    def length(self):
        reply = self._create(prompt(output_tokens=40), max_output_tokens=20)
        same(reply.incomplete_details.reason, "max_output_tokens")

    def tool(self):
        input = user(call=kit.call())
        reply = self._create(input, tools=self.tools)
        same(json.loads(self._calls(reply)[0].arguments), {"city": "Paris"})
        input += reply.output + self._results(reply)
        has(self._create(input, tools=self.tools).output_text, kit.RESULTS["find_city"])

    def parallel(self):
        input = user(call=kit.TWO_CALLS)
        reply = self._create(input, tools=self.tools)
        same([call.name for call in self._calls(reply)], list(kit.RESULTS))
        input += reply.output + self._results(reply)
        has(self._create(input, tools=self.tools).output_text, *kit.RESULTS.values())

    def tool_stream(self):
        input = user(say=kit.SAID, call=kit.TWO_CALLS)
        pieces = {}
        with client.responses.stream(model=self.model, input=input, tools=self.tools) as stream:
            for event in stream:
                if event.type == "response.function_call_arguments.delta":
                    pieces[event.output_index] = pieces.get(event.output_index, "") + event.delta
            reply = stream.get_final_response()
        same(reply.output_text, kit.SAID)
        joined = [json.loads(piece) for piece in pieces.values()]
        same(joined, [{"city": "Paris"}, {"city": "Oslo"}])
        same([json.loads(call.arguments) for call in self._calls(reply)], joined)
        input += [item.to_dict() for item in reply.output] + self._results(reply)
        for item in input:
            item.pop("parsed_arguments", None)
        has(self._create(input, tools=self.tools).output_text, *kit.RESULTS.values())

    def thinking(self):
        """Without the store: the reasoning goes back with its encrypted content, where there is one."""
        input = user(thinking=kit.THOUGHT, call=kit.call())
        more = {
            "tools": self.tools,
            "store": False,
            "reasoning": {"effort": "high", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
        }
        reply = self._create(input, **more)
        reasoning = reply.output[0]
        same((reasoning.type, reasoning.summary[0].text), ("reasoning", kit.THOUGHT))
        input += reply.output + self._results(reply)
        has(self._create(input, **more).output_text, kit.RESULTS["find_city"])

    def thinking_stream(self):
        thought, text = "", ""
        reasoning = {"effort": "high", "summary": "auto"}
        input = prompt(thinking=kit.THOUGHT, say=kit.SAID)
        for event in self._create(input, reasoning=reasoning, stream=True):
            if event.type == "response.reasoning_summary_text.delta":
                thought += event.delta
            if event.type == "response.output_text.delta":
                text += event.delta
        same((thought, text), (kit.THOUGHT, kit.SAID))

    def image(self):
        content = [
            {"type": "input_text", "text": prompt(see=True)},
            {"type": "input_image", "image_url": kit.PNG_URL, "detail": "auto"},
        ]
        kit.saw_image(self._create([{"role": "user", "content": content}]).output_text)

    def json(self):
        reply = client.responses.parse(model=self.model, input=prompt(), text_format=Place)
        same(reply.output_parsed, Place(city="Paris", number=7))

    def long(self):
        kit.saw_long(self._create(kit.history() + user(see=True)).output_text)

    def emoji(self):
        events = self._create(prompt(say=kit.EMOJI, split_chars=True), stream=True)
        pieces = [e.delta for e in events if e.type == "response.output_text.delta"]
        same("".join(pieces), kit.EMOJI)

    def unicode(self):
        same(self._create(prompt(say=kit.UNICODE)).output_text, kit.UNICODE)
        reply = self._create(prompt(call=kit.call(city=kit.UNICODE)), tools=self.tools)
        same(json.loads(self._calls(reply)[0].arguments), {"city": kit.UNICODE})

    def cancel(self):
        stream = self._create(prompt(say="again ", repeat=500, gap_us=10_000), stream=True)
        for _ in range(6):
            next(stream)
        stream.close()
        same(self._create(prompt(say="after")).output_text, "after")

    def stream_error(self):
        """Either way of telling it will do: an error event or a failed response."""
        try:
            events = self._create(prompt(say=kit.SAID, fault="error_after:3"), stream=True)
            last = [event.type for event in events][-1]
            assert last in ("error", "response.failed"), last
        except openai.APIError:
            pass

    def store_previous(self):
        first = self._create(prompt(say=kit.SAID))
        second = self._create(prompt(see=True), previous_response_id=first.id)
        same(self._roles(second), ["user", "assistant", "user"])
        same(second.previous_response_id, first.id)

    def store_previous_tool(self):
        first = self._create(prompt(thinking=kit.THOUGHT, call=kit.TWO_CALLS), tools=self.tools)
        results = self._results(first)
        second = self._create(results, tools=self.tools, previous_response_id=first.id)
        has(second.output_text, *kit.RESULTS.values())

    def store_retrieve(self):
        made = self._create(prompt(say=kit.SAID), metadata={"topic": "river"})
        kept = client.responses.retrieve(made.id)
        same((kept.id, kept.output_text, kept.status), (made.id, kit.SAID, "completed"))
        same(kept.metadata, {"topic": "river"})

    def store_streamed(self):
        with client.responses.stream(model=self.model, input=prompt(say=kit.SAID)) as stream:
            made = stream.get_final_response()
        same(client.responses.retrieve(made.id).output_text, kit.SAID)

    def store_input_items(self):
        made = self._create(user("The only question.", say=kit.SAID))
        items = client.responses.input_items.list(made.id).data
        same([item.role for item in items], ["user"])
        has(items[0].content[0].text, "The only question.")

    def store_delete(self):
        made = self._create(prompt(say=kit.SAID))
        client.responses.delete(made.id)
        raised(openai.NotFoundError, lambda: client.responses.retrieve(made.id))

    def store_false(self):
        made = self._create(prompt(say=kit.SAID), store=False)
        raised(openai.NotFoundError, lambda: client.responses.retrieve(made.id))

    def store_background(self):
        made = self._create(prompt(say=kit.SAID, first_ms=300), background=True)
        assert made.status in ("queued", "in_progress"), made.status
        same(self._ended(made.id).output_text, kit.SAID)

    def store_background_stream(self):
        """The caller leaves, and takes the stream up again behind the last event it has read."""
        with self._create(prompt(say=kit.SAID), background=True, stream=True) as stream:
            first = next(iter(stream))
        rest = client.responses.retrieve(
            first.response.id, stream=True, starting_after=first.sequence_number
        )
        deltas = [event.delta for event in rest if event.type == "response.output_text.delta"]
        same("".join(deltas), kit.SAID)
        same(self._ended(first.response.id).output_text, kit.SAID)

    def store_background_cancel(self):
        made = self._create(prompt(say=kit.SAID, first_ms=5000), background=True)
        client.responses.cancel(made.id)
        same(self._ended(made.id).status, "cancelled")

    def _ended(self, id):
        for _ in range(100):
            kept = client.responses.retrieve(id)
            if kept.status not in ("queued", "in_progress"):
                return kept
            time.sleep(0.05)
        raise AssertionError(f"still {kept.status} after 5 s")

    def store_conversation(self):
        turn = lambda role, text: {"type": "message", "role": role, "content": text}
        begun = [turn("user", "It begins."), turn("assistant", "It does.")]
        talk = client.conversations.create(items=begun, metadata={"topic": "river"})
        self._create(prompt(say=kit.SAID), conversation=talk.id)
        second = self._create(prompt(see=True), conversation=talk.id)
        same(self._roles(second), ["user", "assistant"] * 2 + ["user"])
        same(client.conversations.retrieve(talk.id).metadata, {"topic": "river"})
        items = client.conversations.items.list(talk.id, order="asc").data
        same([item.role for item in items], ["user", "assistant"] * 3)
        client.conversations.delete(talk.id)
        raised(openai.NotFoundError, lambda: client.conversations.retrieve(talk.id))


class Other:
    """Endpoints that do not depend on the upstream. EMBEDDINGS may name the model for embeddings."""

    dialect = "openai"

    def __init__(self, model):
        self.model = model

    @once
    def models(self):
        ids = [model.id for model in client.models.list()]
        assert ids and all(ids), ids

    @once
    def embeddings(self):
        model = os.environ.get("EMBEDDINGS", self.model)
        made = client.embeddings.create(model=model, input=["one river", "two mills"])
        same([entry.index for entry in made.data], [0, 1])
        plain = client.embeddings.create(model=model, input="one river", encoding_format="float")
        pairs = zip(made.data[0].embedding, plain.data[0].embedding, strict=True)
        assert all(abs(a - b) < 1e-6 for a, b in pairs), "base64 and float differ"
        assert made.usage.prompt_tokens > 0, made.usage


kit.run("openai-py", openai.__version__, Chat, Responses, Other)
