"""Claude Code's command line, started with a prompt in an empty home folder.

NODE_PATH says where it is installed. What it tells beside its model's answers is switched off.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import kit
from kit import has, prompt, same

PROGRAM = Path(os.environ["NODE_PATH"]) / ".bin" / "claude"
ENVIRONMENT = {
    "ANTHROPIC_BASE_URL": kit.GATEWAY,
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_MAX_RETRIES": "0",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
}
KEY = {"ANTHROPIC_API_KEY": kit.KEY}
TOOLS = ["--allowedTools", "Bash,Read"]


def bash(command):
    return {"name": "Bash", "arguments": {"command": command, "description": "Says a word"}}


class Messages:
    dialect = "messages"

    def __init__(self, model):
        self.model = model
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)

    def _run(self, asked, *options, environment=KEY):
        """The messages of the session, and the last one, its result."""
        how = ["--output-format", "stream-json", "--verbose", "--model", self.model]
        command = [PROGRAM, "-p", asked, *how, *TOOLS, *options]
        lines = kit.lines_of(command, self.folder.name, {**ENVIRONMENT, **environment})
        same(lines[-1]["type"], "result")
        return lines, lines[-1]

    def _answer(self, asked, *options, **more):
        _, result = self._run(asked, *options, **more)
        assert not result["is_error"], result["result"]
        return result["result"]

    def text(self):
        same(self._answer(prompt(say=kit.SAID)), kit.SAID)

    def bearer(self):
        environment = {"ANTHROPIC_AUTH_TOKEN": kit.KEY}
        same(self._answer(prompt(say=kit.SAID), environment=environment), kit.SAID)

    def tool(self):
        has(self._answer(prompt(call=bash("echo pareto-$((40+2))"))), "pareto-42")

    def tool_error(self):
        has(self._answer(prompt(call=bash("echo pareto-bad >&2; exit 3"))), "pareto-bad")

    def parallel(self):
        calls = [bash("echo pareto-$((40+2))"), bash("echo pareto-$((50+3))")]
        has(self._answer(prompt(say=kit.SAID, call=calls)), "pareto-42", "pareto-53")

    def thinking(self):
        asked = prompt(thinking=kit.THOUGHT, call=bash("echo pareto-$((40+2))"))
        lines, result = self._run(asked)
        blocks = [b for line in lines if line["type"] == "assistant" for b in line["message"]["content"]]
        thoughts = [block["thinking"] for block in blocks if block["type"] == "thinking"]
        same(thoughts[:1], [kit.THOUGHT])
        has(result["result"], "pareto-42")

    def image(self):
        """It reads a file: the image comes back inside the tool's result."""
        file = Path(self.folder.name) / "map.png"
        file.write_bytes(kit.PNG)
        call = {"name": "Read", "arguments": {"file_path": str(file)}}
        has(self._answer(prompt(call=call)), "[image/png ")

    def turns(self):
        """A second prompt goes on with the session of the first, calls and results and all."""
        self._answer(prompt(thinking=kit.THOUGHT, call=bash("echo pareto-$((40+2))")))
        seen = json.loads(self._answer(prompt(see=True), "--continue"))
        same(seen["tool_results"], 1)

    def error_401(self):
        _, result = self._run(prompt(say="in"), environment={"ANTHROPIC_API_KEY": kit.WRONG_KEY})
        assert result["is_error"], result
        has(result["result"], "401")

    def error_529(self):
        _, result = self._run(prompt(fault="status:529"))
        assert result["is_error"], result
        has(result["result"], "529")


told = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=60)
kit.run("claude-code", told.stdout.split()[0], Messages)
