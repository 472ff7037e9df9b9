"""The OpenAI Agents SDK for Python, with its models for Chat Completions and for Responses."""

import json

import agents
import kit
import openai
from agents import Agent, ModelSettings, Runner, function_tool
from kit import has, prompt, same
from pydantic import BaseModel

agents.set_tracing_disabled(True)


class Place(BaseModel):
    city: str
    number: int


@function_tool
def find_city(city: str) -> str:
    """Finds a city."""
    return kit.RESULTS["find_city"]


@function_tool
def find_time(city: str) -> str:
    """Finds the time of a city."""
    return kit.RESULTS["find_time"]


@function_tool
def find_none(city: str) -> str:
    """Finds nothing."""
    raise ValueError(f"no city {city}")


class Scenarios:
    """A dialect adds `_kind`, its class of models."""

    _settings = {}

    def __init__(self, model):
        self.name = model

    def _client(self, key):
        return openai.AsyncOpenAI(base_url=kit.V1, api_key=key, max_retries=0, timeout=kit.TIMEOUT_S)

    def _agent(self, key=kit.KEY, **more):
        model = self._kind(model=self.name, openai_client=self._client(key))
        settings = ModelSettings(include_usage=True, **self._settings)
        return Agent(name="Miller", model=model, model_settings=settings, **more)

    def _with_tools(self):
        return self._agent(instructions="Be brief.", tools=[find_city, find_time, find_none])

    async def _run(self, agent, input):
        return await Runner.run(agent, input)

    async def _streamed(self, agent, input):
        """The joined text of all events, and the result."""
        result = Runner.run_streamed(agent, input)
        text = ""
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                text += event.data.delta
        return text, result

    async def _raised(self, kind, agent, **script):
        try:
            await self._run(agent, prompt(**script))
        except kind as error:
            return error
        raise AssertionError(f"no {kind.__name__} was raised")

    async def text(self):
        result = await self._run(self._agent(), prompt(say=kit.SAID))
        same(result.final_output, kit.SAID)
        assert result.context_wrapper.usage.output_tokens > 0, result.context_wrapper.usage

    async def stream(self):
        text, result = await self._streamed(self._agent(), prompt(say=kit.SAID))
        same((text, result.final_output), (kit.SAID, kit.SAID))
        assert result.context_wrapper.usage.output_tokens > 0, result.context_wrapper.usage

    async def system(self):
        result = await self._run(self._agent(instructions="Be brief."), prompt(see=True))
        has(json.loads(result.final_output)["system"], "Be brief.")

    async def tool(self):
        result = await self._run(self._with_tools(), prompt(call=kit.call()))
        has(result.final_output, kit.RESULTS["find_city"])

    async def tool_error(self):
        result = await self._run(self._with_tools(), prompt(call=kit.call("find_none")))
        has(result.final_output, "The tool said: An error occurred")

    async def parallel(self):
        result = await self._run(self._with_tools(), prompt(call=kit.TWO_CALLS))
        has(result.final_output, *kit.RESULTS.values())

    async def tool_stream(self):
        asked = prompt(say=kit.SAID, call=kit.TWO_CALLS)
        text, result = await self._streamed(self._with_tools(), asked)
        has(text, kit.SAID)
        has(result.final_output, *kit.RESULTS.values())

    async def turns(self):
        """A second run takes all items of the first one, with calls and results, as its input."""
        agent = self._with_tools()
        first = await self._run(agent, prompt(call=kit.call()))
        asked = {"role": "user", "content": prompt(see=True)}
        second = await self._run(agent, [*first.to_input_list(), asked])
        same(json.loads(second.final_output)["tool_results"], 1)

    async def handoff(self):
        """Another agent takes over: a tool call whose result is that agent's name."""
        other = self._agent(instructions="Be long.")
        other.name = "Ferry"
        call = {"name": "transfer_to_ferry", "arguments": {}}
        result = await self._run(self._agent(handoffs=[other]), prompt(call=call))
        same(result.last_agent.name, "Ferry")
        has(result.final_output, "Ferry")

    async def thinking(self):
        result = await self._run(self._with_tools(), prompt(thinking=kit.THOUGHT, call=kit.call()))
        items = [item.raw_item for item in result.new_items if item.type == "reasoning_item"]
        same(items[0].summary[0].text, kit.THOUGHT)
        has(result.final_output, kit.RESULTS["find_city"])

    async def thinking_stream(self):
        asked = prompt(thinking=kit.THOUGHT, call=kit.call())
        _, result = await self._streamed(self._with_tools(), asked)
        items = [item.raw_item for item in result.new_items if item.type == "reasoning_item"]
        same(items[0].summary[0].text, kit.THOUGHT)
        has(result.final_output, kit.RESULTS["find_city"])

    async def image(self):
        content = [
            {"type": "input_text", "text": prompt(see=True)},
            {"type": "input_image", "image_url": kit.PNG_URL, "detail": "auto"},
        ]
        result = await self._run(self._agent(), [{"role": "user", "content": content}])
        kit.saw_image(result.final_output)

    async def json(self):
        result = await self._run(self._agent(output_type=Place), prompt())
        same(result.final_output, Place(city="Paris", number=7))

    async def long(self):
        asked = {"role": "user", "content": prompt(see=True)}
        result = await self._run(self._agent(), [*kit.history(), asked])
        kit.saw_long(result.final_output)

    async def emoji(self):
        asked = prompt(say=kit.EMOJI, split_chars=True)
        same((await self._streamed(self._agent(), asked))[0], kit.EMOJI)

    async def unicode(self):
        same((await self._run(self._agent(), prompt(say=kit.UNICODE))).final_output, kit.UNICODE)

    async def cancel(self):
        asked = prompt(say="again ", repeat=500, gap_us=10_000)
        result = Runner.run_streamed(self._agent(), asked)
        count = 0
        async for _ in result.stream_events():
            count += 1
            if count == 8:
                result.cancel()
        assert count >= 8, "the stream ended too soon"
        same((await self._run(self._agent(), prompt(say="after"))).final_output, "after")

    async def error_401(self):
        await self._raised(openai.AuthenticationError, self._agent(kit.WRONG_KEY), say="in")

    async def error_429(self):
        error = await self._raised(openai.RateLimitError, self._agent(), fault="status:429:2")
        assert float(error.response.headers["retry-after"]) >= 1

    async def error_500(self):
        await self._raised(openai.InternalServerError, self._agent(), fault="status:500")

    async def error_529(self):
        await self._raised(openai.InternalServerError, self._agent(), fault="status:529")


class Chat(Scenarios):
    dialect = "chat"
    _kind = agents.OpenAIChatCompletionsModel


class Responses(Scenarios):
    dialect = "responses"
    _kind = agents.OpenAIResponsesModel
    _settings = {
        "store": False,
        "reasoning": {"effort": "high", "summary": "auto"},
        "response_include": ["reasoning.encrypted_content"],
    }

    def _stored(self):
        agent = self._with_tools()
        agent.model_settings = ModelSettings(store=True)
        return agent

    async def store_previous(self):
        """The server keeps the talk: each call of the loop names the one before it."""
        asked = prompt(thinking=kit.THOUGHT, call=kit.TWO_CALLS)
        first = await Runner.run(self._stored(), asked, auto_previous_response_id=True)
        has(first.final_output, *kit.RESULTS.values())
        more = {"previous_response_id": first.last_response_id}
        second = await Runner.run(self._stored(), prompt(see=True), **more)
        same(json.loads(second.final_output)["tool_results"], 2)

    async def store_session(self):
        session = agents.OpenAIConversationsSession(openai_client=self._client(kit.KEY))
        await Runner.run(self._stored(), prompt(call=kit.call()), session=session)
        second = await Runner.run(self._stored(), prompt(see=True), session=session)
        same(json.loads(second.final_output)["tool_results"], 1)
        await session.clear_session()

    async def store_conversation(self):
        talk = await self._client(kit.KEY).conversations.create()
        await Runner.run(self._stored(), prompt(call=kit.call()), conversation_id=talk.id)
        second = await Runner.run(self._stored(), prompt(see=True), conversation_id=talk.id)
        same(json.loads(second.final_output)["tool_results"], 1)


kit.run("openai-agents", agents.version.__version__, Chat, Responses)
