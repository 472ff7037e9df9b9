"""Pydantic AI with its models for OpenAI (Chat Completions and Responses) and Anthropic."""

import json
import warnings

import anthropic
import kit
import openai
import pydantic_ai
from kit import has, prompt, same
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, ModelHTTPError, NativeOutput, ThinkingPart, ToolOutput
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

warnings.simplefilter("ignore")


class Place(BaseModel):
    city: str
    number: int


def find_city(city: str) -> str:
    """Finds a city."""
    return kit.RESULTS["find_city"]


def find_time(city: str) -> str:
    """Finds the time of a city."""
    return kit.RESULTS["find_time"]


def find_none(city: str) -> str:
    """Finds nothing."""
    raise pydantic_ai.ModelRetry(f"no city {city}")


class Scenarios:
    """A dialect adds `_model`, which makes a model."""

    _thinking = {}

    def __init__(self, model):
        self.name = model

    def _agent(self, key=kit.KEY, **more):
        return Agent(self._model(key), **more)

    def _with_tools(self, **more):
        return self._agent(tools=[find_city, find_time, find_none], **more)

    async def _text(self, asked):
        return (await self._agent().run(asked)).output

    async def _streamed(self, agent, asked):
        """All events of the run, and its result."""
        async with agent.run_stream_events(asked) as stream:
            events = [event async for event in stream]
        return events, events[-1].result

    async def _joined(self, asked):
        async with self._agent().run_stream(asked) as run:
            return "".join([piece async for piece in run.stream_text(delta=True, debounce_by=None)])

    async def _raised(self, statuses, agent, **script):
        try:
            await agent.run(prompt(**script))
        except ModelHTTPError as error:
            assert error.status_code in statuses, error
            return error
        raise AssertionError("no ModelHTTPError was raised")

    def _thoughts(self, result):
        parts = [part for message in result.all_messages() for part in message.parts]
        return [part.content for part in parts if isinstance(part, ThinkingPart)]

    async def text(self):
        result = await self._agent().run(prompt(say=kit.SAID))
        same(result.output, kit.SAID)
        assert result.usage.output_tokens > 0, result.usage

    async def stream(self):
        same(await self._joined(prompt(say=kit.SAID)), kit.SAID)

    async def system(self):
        result = await self._agent(instructions="Be brief.").run(prompt(see=True))
        has(json.loads(result.output)["system"], "Be brief.")

    async def tool(self):
        result = await self._with_tools().run(prompt(call=kit.call()))
        has(result.output, kit.RESULTS["find_city"])

    async def tool_error(self):
        result = await self._with_tools().run(prompt(call=kit.call("find_none")))
        has(result.output, "no city Paris")

    async def parallel(self):
        result = await self._with_tools().run(prompt(call=kit.TWO_CALLS))
        has(result.output, *kit.RESULTS.values())

    async def tool_stream(self):
        asked = prompt(say=kit.SAID, call=kit.TWO_CALLS)
        events, result = await self._streamed(self._with_tools(), asked)
        calls = [event.part for event in events if event.event_kind == "function_tool_call"]
        same([call.args_as_dict() for call in calls], [{"city": "Paris"}, {"city": "Oslo"}])
        has(result.output, *kit.RESULTS.values())

    async def turns(self):
        """A second run takes the messages of the first one, with call and result."""
        first = await self._with_tools().run(prompt(call=kit.call()))
        history = first.all_messages()
        second = await self._with_tools().run(prompt(see=True), message_history=history)
        same(json.loads(second.output)["tool_results"], 1)

    async def thinking(self):
        agent = self._with_tools(model_settings=self._thinking)
        result = await agent.run(prompt(thinking=kit.THOUGHT, call=kit.call()))
        same(self._thoughts(result)[0], kit.THOUGHT)
        has(result.output, kit.RESULTS["find_city"])

    async def thinking_stream(self):
        agent = self._with_tools(model_settings=self._thinking)
        asked = prompt(thinking=kit.THOUGHT, call=kit.call())
        _, result = await self._streamed(agent, asked)
        same(self._thoughts(result)[0], kit.THOUGHT)
        has(result.output, kit.RESULTS["find_city"])

    async def image(self):
        picture = BinaryContent(kit.PNG, media_type="image/png")
        kit.saw_image(await self._text([prompt(see=True), picture]))

    async def json(self):
        result = await self._agent(output_type=NativeOutput(Place)).run(prompt())
        same(result.output, Place(city="Paris", number=7))

    async def json_tool(self):
        """The structure as the arguments of a tool that must be called."""
        shape = ToolOutput(Place, name="place")
        wanted = {"name": "place", "arguments": {"city": "Oslo", "number": 3}}
        result = await self._agent(output_type=shape).run(prompt(call=wanted))
        same(result.output, Place(city="Oslo", number=3))

    async def long(self):
        history = [
            ModelRequest([UserPromptPart(turn["content"])])
            if turn["role"] == "user"
            else ModelResponse([TextPart(turn["content"])])
            for turn in kit.history()
        ]
        result = await self._agent().run(prompt(see=True), message_history=history)
        kit.saw_long(result.output)

    async def emoji(self):
        same(await self._joined(prompt(say=kit.EMOJI, split_chars=True)), kit.EMOJI)

    async def unicode(self):
        same(await self._text(prompt(say=kit.UNICODE)), kit.UNICODE)

    async def cancel(self):
        asked = prompt(say="again ", repeat=500, gap_us=10_000)
        async with self._agent().run_stream(asked) as run:
            async for piece in run.stream_text(delta=True, debounce_by=None):
                has(piece, "again")
                break
        same(await self._text(prompt(say="after")), "after")

    async def error_401(self):
        await self._raised([401], self._agent(kit.WRONG_KEY), say="in")

    async def error_429(self):
        error = await self._raised([429], self._agent(), fault="status:429:2")
        assert float(error.headers["retry-after"]) >= 1

    async def error_500(self):
        await self._raised(range(500, 600), self._agent(), fault="status:500")

    async def error_529(self):
        await self._raised(range(500, 600), self._agent(), fault="status:529")


class Chat(Scenarios):
    dialect = "chat"
    _thinking = {"openai_reasoning_effort": "high"}
    _profile = {"supports_json_schema_output": True}

    def _provider(self, key):
        settings = {"base_url": kit.V1, "max_retries": 0, "timeout": kit.TIMEOUT_S}
        return OpenAIProvider(openai_client=openai.AsyncOpenAI(api_key=key, **settings))

    def _model(self, key):
        return OpenAIChatModel(self.name, provider=self._provider(key))


class Responses(Chat):
    dialect = "responses"
    _thinking = {
        "openai_reasoning_effort": "high",
        "openai_reasoning_summary": "auto",
        "openai_store": False,
    }

    def _model(self, key):
        # What it knows by the names of OpenAI's models.
        profile = {"openai_supports_encrypted_reasoning_content": True, "supports_thinking": True}
        return OpenAIResponsesModel(self.name, provider=self._provider(key), profile=profile)

    async def store_previous(self):
        settings = {"openai_previous_response_id": "auto"}
        agent = self._with_tools(model_settings=settings)
        first = await agent.run(prompt(call=kit.TWO_CALLS))
        has(first.output, *kit.RESULTS.values())
        second = await agent.run(prompt(see=True), message_history=first.all_messages())
        same(json.loads(second.output)["tool_results"], 2)


class Messages(Scenarios):
    dialect = "messages"
    _thinking = {
        "anthropic_thinking": {"type": "enabled", "budget_tokens": 1024},
        "max_tokens": 2000,
    }

    def _model(self, key):
        settings = {"base_url": kit.GATEWAY, "max_retries": 0, "timeout": kit.TIMEOUT_S}
        client = anthropic.AsyncAnthropic(api_key=key, **settings)
        profile = {"supports_json_schema_output": True}
        provider = AnthropicProvider(anthropic_client=client)
        return AnthropicModel(self.name, provider=provider, profile=profile)


kit.run("pydantic-ai", pydantic_ai.__version__, Chat, Responses, Messages)
