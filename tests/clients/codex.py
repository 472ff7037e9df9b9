"""Codex's command line, started with a prompt in an empty home folder.

NODE_PATH says where it is installed.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import kit
from kit import has, prompt, same

PROGRAM = Path(os.environ["NODE_PATH"]) / ".bin" / "codex"
# Its own sandbox needs rights that a container has not; the commands are echo.
HOW = ["exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
CONFIG = f"""
model_provider = "gateway"
check_for_update_on_startup = false
[model_providers.gateway]
name = "gateway"
base_url = "{kit.V1}"
env_key = "GATEWAY_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
[analytics]
enabled = false
"""


def shell(command):
    return {"name": "exec_command", "arguments": {"cmd": command}}


class Responses:
    dialect = "responses"

    def __init__(self, model):
        self.model = model
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (Path(self.folder.name) / "config.toml").write_text(CONFIG)

    def _run(self, asked, *options, key=kit.KEY, subcommand=()):
        """The events that it tells."""
        command = [PROGRAM, *HOW, "--model", self.model, *subcommand, *options, "--", asked]
        environment = {"CODEX_HOME": self.folder.name, "GATEWAY_KEY": key}
        return kit.lines_of(command, self.folder.name, environment)

    def _answer(self, asked, *options, **more):
        return self._last(self._run(asked, *options, **more), "agent_message")

    def _last(self, lines, kind):
        items = [line["item"] for line in lines if line["type"] == "item.completed"]
        texts = [item["text"] for item in items if item["type"] == kind]
        if kind == "agent_message":
            texts = texts or self._recorded()
        assert texts, f"no {kind} in {lines}"
        return texts[-1]

    def _recorded(self):
        """What it wrote down of its last session: on a busy machine it may have had an answer, and
        acted on it, and not have printed it."""
        files = sorted(Path(self.folder.name).glob("sessions/**/*.jsonl"), key=os.path.getmtime)
        lines = files[-1].read_text().splitlines() if files else []
        told = [json.loads(line)["payload"] for line in lines]
        ended = [it for it in told if it.get("type") == "task_complete"]
        return [it["last_agent_message"] for it in ended[-1:] if it.get("last_agent_message")]

    def text(self):
        same(self._answer(prompt(say=kit.SAID)), kit.SAID)
        same(self._recorded(), [kit.SAID])

    def tool(self):
        has(self._answer(prompt(call=shell("echo pareto-$((40+2))"))), "pareto-42")

    def parallel(self):
        calls = [shell("echo pareto-$((40+2))"), shell("echo pareto-$((50+3))")]
        has(self._answer(prompt(say=kit.SAID, call=calls)), "pareto-42", "pareto-53")

    def namespace(self):
        """A tool of a group of tools. A translator may join both names; only what is offered is called."""
        joined = [f"multi_agent_v1{join}wait_agent" for join in ("__", "_", ".", "-")]
        arguments = {"targets": ["none"]}
        calls = [{"name": name, "arguments": arguments} for name in ["wait_agent", *joined]]
        has(self._answer(prompt(call=calls)), "invalid agent id none")

    def thinking(self):
        asked = prompt(thinking=kit.THOUGHT, call=shell("echo pareto-$((40+2))"))
        lines = self._run(asked)
        has(self._last(lines, "reasoning"), kit.THOUGHT)
        has(self._last(lines, "agent_message"), "pareto-42")

    def image(self):
        file = Path(self.folder.name) / "map.png"
        file.write_bytes(kit.PNG)
        seen = json.loads(self._answer(prompt(see=True), "--image", str(file)))
        same(seen["images"], 1)

    def turns(self):
        """A second prompt goes on with the session of the first, calls and results and all."""
        self._answer(prompt(thinking=kit.THOUGHT, call=shell("echo pareto-$((40+2))")))
        seen = json.loads(self._answer(prompt(see=True), subcommand=["resume", "--last"]))
        same(seen["tool_results"], 1)

    def error_401(self):
        lines = self._run(prompt(say="in"), key=kit.WRONG_KEY)
        same(lines[-1]["type"], "turn.failed")
        has(lines[-1]["error"]["message"], "401")

    def error_429(self):
        lines = self._run(prompt(fault="status:429:2"))
        same(lines[-1]["type"], "turn.failed")
        has(lines[-1]["error"]["message"], "429")


told = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=60)
kit.run("codex", told.stdout.split()[-1], Responses)
