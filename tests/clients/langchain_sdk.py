"""LangChain's models for OpenAI (Chat Completions and Responses) and Anthropic."""

import json
import os

os.environ["LANGSMITH_TRACING"] = "false"

import anthropic
import kit
import langchain_anthropic
import langchain_openai
import openai
from kit import has, prompt, raised, same
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel


class Place(BaseModel):
    """A place."""

    city: str
    number: int


@tool
def find_city(city: str) -> str:
    """Finds a city."""
    return kit.RESULTS["find_city"]


@tool
def find_time(city: str) -> str:
    """Finds the time of a city."""
    return kit.RESULTS["find_time"]


TOOLS = {"find_city": find_city, "find_time": find_time}


class Scenarios:
    """A dialect adds `_model`, which makes a model, and its kinds of exceptions `_errors`."""

    _thinking = {}

    def __init__(self, model):
        self.name = model
        self.model = self._model()

    def _text(self, *messages):
        return self.model.invoke(list(messages)).text

    def _loop(self, model, messages, streamed=False):
        """Calls the model and its tools until it answers, all messages of that."""
        for _ in range(3):
            if streamed:
                # Pieces add up to a message by their `+`.
                pieces = list(model.stream(messages))
                reply = sum(pieces[1:], start=pieces[0])
            else:
                reply = model.invoke(messages)
            messages = [*messages, reply]
            if not reply.tool_calls:
                return messages
            messages += [TOOLS[call["name"]].invoke(call) for call in reply.tool_calls]
        raise AssertionError("the model calls tools without end")

    def _tools(self, **more):
        return self._model(**more).bind_tools(list(TOOLS.values()))

    def text(self):
        reply = self.model.invoke(prompt(say=kit.SAID))
        same(reply.text, kit.SAID)
        assert reply.usage_metadata["output_tokens"] > 0, reply.usage_metadata

    def stream(self):
        pieces = list(self.model.stream(prompt(say=kit.SAID)))
        same("".join(piece.text for piece in pieces), kit.SAID)
        usage = sum(pieces[1:], start=pieces[0]).usage_metadata
        assert usage["output_tokens"] > 0, usage

    def system(self):
        text = self._text(SystemMessage("Be brief."), HumanMessage(prompt(see=True)))
        has(json.loads(text)["system"], "Be brief.")

    def tool(self):
        messages = self._loop(self._tools(), [HumanMessage(prompt(call=kit.call()))])
        same(messages[1].tool_calls[0]["args"], {"city": "Paris"})
        has(messages[-1].text, kit.RESULTS["find_city"])

    def tool_error(self):
        messages = [HumanMessage(prompt(call=kit.call()))]
        messages.append(self._tools().invoke(messages))
        id = messages[-1].tool_calls[0]["id"]
        messages.append(ToolMessage("no such city", tool_call_id=id, status="error"))
        has(self._tools().invoke(messages).text, "no such city")

    def parallel(self):
        messages = self._loop(self._tools(), [HumanMessage(prompt(call=kit.TWO_CALLS))])
        same([call["name"] for call in messages[1].tool_calls], list(kit.RESULTS))
        has(messages[-1].text, *kit.RESULTS.values())

    def tool_stream(self):
        asked = HumanMessage(prompt(say=kit.SAID, call=kit.TWO_CALLS))
        messages = self._loop(self._tools(), [asked], streamed=True)
        same(messages[1].text, kit.SAID)
        same([call["args"] for call in messages[1].tool_calls], [{"city": "Paris"}, {"city": "Oslo"}])
        has(messages[-1].text, *kit.RESULTS.values())

    def thinking(self, streamed=False):
        asked = HumanMessage(prompt(thinking=kit.THOUGHT, call=kit.call()))
        messages = self._loop(self._tools(**self._thinking), [asked], streamed)
        blocks = messages[1].content_blocks
        thoughts = [block["reasoning"] for block in blocks if block["type"] == "reasoning"]
        same("".join(thoughts), kit.THOUGHT)
        has(messages[-1].text, kit.RESULTS["find_city"])

    def thinking_stream(self):
        self.thinking(streamed=True)

    def image(self):
        image = {"type": "image", "base64": kit.PNG_BASE64, "mime_type": "image/png"}
        content = [{"type": "text", "text": prompt(see=True)}, image]
        kit.saw_image(self._text(HumanMessage(content)))

    def json(self):
        shaped = self.model.with_structured_output(Place, method="json_schema")
        same(shaped.invoke(prompt()), Place(city="Paris", number=7))

    def json_tool(self):
        """The structure as the arguments of a tool that must be called."""
        shaped = self.model.with_structured_output(Place, method="function_calling")
        wanted = {"name": "Place", "arguments": {"city": "Oslo", "number": 3}}
        same(shaped.invoke(prompt(call=wanted)), Place(city="Oslo", number=3))

    def long(self):
        kit.saw_long(self.model.invoke([*kit.history(), HumanMessage(prompt(see=True))]).text)

    def emoji(self):
        pieces = self.model.stream(prompt(say=kit.EMOJI, split_chars=True))
        same("".join(piece.text for piece in pieces), kit.EMOJI)

    def unicode(self):
        same(self._text(HumanMessage(prompt(say=kit.UNICODE))), kit.UNICODE)

    def cancel(self):
        stream = self.model.stream(prompt(say="again ", repeat=500, gap_us=10_000))
        for _ in range(3):
            next(stream)
        stream.close()
        same(self._text(HumanMessage(prompt(say="after"))), "after")

    def error_401(self):
        model = self._model(api_key=kit.WRONG_KEY)
        raised(self._errors.AuthenticationError, lambda: model.invoke(prompt(say="in")))

    def error_429(self):
        ask = lambda: self.model.invoke(prompt(fault="status:429:2"))
        error = raised(self._errors.RateLimitError, ask)
        assert float(error.response.headers["retry-after"]) >= 1

    def error_500(self):
        ask = lambda: self.model.invoke(prompt(fault="status:500"))
        raised(self._errors.InternalServerError, ask)

    def error_529(self):
        ask = lambda: self.model.invoke(prompt(fault="status:529"))
        raised(self._errors.InternalServerError, ask)


class Chat(Scenarios):
    """It does not read `reasoning_content`: there is no thinking to look at."""

    dialect = "chat"
    _errors = openai
    thinking = None
    thinking_stream = None

    def _model(self, **more):
        settings = {"base_url": kit.V1, "api_key": kit.KEY, "max_retries": 0, "timeout": kit.TIMEOUT_S}
        settings |= {"stream_usage": True, "use_responses_api": False}
        return langchain_openai.ChatOpenAI(model=self.name, **settings | more)


class Responses(Chat):
    dialect = "responses"
    _thinking = {"reasoning": {"effort": "high", "summary": "auto"}, "store": False}
    _thinking |= {"include": ["reasoning.encrypted_content"]}
    thinking = Scenarios.thinking
    thinking_stream = Scenarios.thinking_stream

    def _model(self, **more):
        return super()._model(use_responses_api=True, output_version="responses/v1", **more)

    def store_previous(self):
        model = self._model(use_previous_response_id=True)
        messages = [HumanMessage(prompt(say=kit.SAID))]
        messages += [model.invoke(messages), HumanMessage(prompt(see=True))]
        same(json.loads(model.invoke(messages).text)["roles"], ["user", "assistant", "user"])


class Messages(Scenarios):
    dialect = "messages"
    _errors = anthropic
    _thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000}

    def _model(self, **more):
        settings = {"base_url": kit.GATEWAY, "api_key": kit.KEY, "max_retries": 0, "timeout": kit.TIMEOUT_S}
        settings |= {"max_tokens": 1000}
        return langchain_anthropic.ChatAnthropic(model=self.name, **settings | more)


version = f"openai {langchain_openai.__version__}, anthropic {langchain_anthropic.__version__}"
kit.run("langchain", version, Chat, Responses, Messages)
