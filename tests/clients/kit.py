"""What the Python clients' scripts share: scripted prompts, data, and the loop over their scenarios.

A script names its dialects as classes whose public methods are the scenarios. Arguments of the
command, if any, are the only scenarios to run.
"""

import asyncio
import base64
import fnmatch
import inspect
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

GATEWAY = os.environ["GATEWAY"].rstrip("/")
V1 = GATEWAY + "/v1"
KEY = os.environ["KEY"]
WRONG_KEY = "sk-wrong"
# Upstream's dialect -> name of a model that is served there.
MODELS = json.loads(os.environ["MODELS"])
# Patterns of scenarios, or of dialect/upstream/scenario.
SKIP = [name for name in os.environ.get("SKIP", "").split(",") if name]
TIMEOUT_S = 30
COMMAND_S = 45
# One for all scenarios, because clients keep connections that belong to their loop.
LOOP = asyncio.Runner()

PNG_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PNG = base64.b64decode(PNG_BASE64)
PNG_URL = f"data:image/png;base64,{PNG_BASE64}"
SAID = "The river bends twice before the mill."
THOUGHT = "First the river, then the mill."
EMOJI = "Family 👩‍👩‍👧‍👦 waves 🇩🇰 and 👍🏽 then 🏴󠁧󠁢󠁳󠁣󠁴󠁿 with ❤️‍🔥 ends 🧑🏿‍🚀."
UNICODE = 'Ærø 東京 हिन्दी العربية עברית e\u0301 \u200b"quoted" back\\slash\ttab\nline ☃ end'
# 20 of these are a long history.
FILLER = "The mill turns slowly and the river does not mind it. " * 190
# Bytes that a long history has at least.
LONG = 200_000


def prompt(text="Do as you are told.", **script):
    return f"{text} <<script {json.dumps(script, ensure_ascii=False)}>>"


def call(name="find_city", city="Paris"):
    return {"name": name, "arguments": {"city": city}}


TWO_CALLS = [call("find_city", "Paris"), call("find_time", "Oslo")]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Name of the city"}},
    "required": ["city"],
    "additionalProperties": False,
}
RESULTS = {"find_city": "it is by the Seine", "find_time": "it is noon"}


def history():
    """Ten rounds of a long conversation."""
    roles = ["user", "assistant"] * 10
    return [{"role": role, "content": FILLER} for role in roles]


def same(got, want):
    assert got == want, f"{got!r} is not {want!r}"


def has(text, *pieces):
    for piece in pieces:
        assert piece in (text or ""), f"{piece!r} is not in {text!r}"


def saw_image(text):
    seen = json.loads(text)
    same((seen["images"], seen["image_bytes"]), (1, len(PNG)))


def saw_long(text):
    seen = json.loads(text)
    assert seen["bytes"] >= LONG, f"only {seen['bytes']} bytes arrived"


def raised(kind, act):
    """The exception of this kind that the act ends with."""
    try:
        act()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


def lines_of(command, folder, environment):
    """What the command prints in this home folder, those lines that are JSON. It and whatever it
    started are ended after COMMAND_S seconds."""
    started = subprocess.Popen(
        command,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": folder, **environment},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        told, complaints = started.communicate(timeout=COMMAND_S)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        told, _ = started.communicate()
        raise AssertionError(f"not ended after {COMMAND_S} s: {told[-250:]}") from None
    lines = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert lines, told + complaints
    return lines


def once(scenario):
    """Marks a scenario that is the same for every upstream."""
    scenario.once = True
    return scenario


def run(client, version, *dialects):
    """Runs all scenarios of the dialects for each model, prints a line for each, and exits."""
    tell("version", client, version)
    failed = False
    for number, (upstream, model) in enumerate(MODELS.items()):
        for dialect in dialects:
            for name in scenarios(dialect):
                act = getattr(dialect, name)
                only_once = getattr(act, "once", False)
                if (only_once and number > 0) or skipped(dialect.dialect, upstream, name):
                    continue
                where = (client, dialect.dialect, "-" if only_once else upstream, name)
                reason = attempt(dialect, model, name)
                failed = failed or reason is not None
                tell(*(["ok", *where] if reason is None else ["FAIL", *where, reason]))
    sys.stdout.flush()
    # Threads that a client left behind must not delay the end.
    os._exit(1 if failed else 0)


def tell(*fields):
    print("\t".join(fields), flush=True)


def scenarios(dialect):
    """Names in the order of their definition, base classes first and errors last, because a gateway
    may avoid an upstream after them. None in a subclass takes a scenario away."""
    names = [name for kind in reversed(dialect.__mro__) for name in vars(kind)]
    names.sort(key=lambda name: name.startswith("error_"))
    return [
        name
        for name in dict.fromkeys(names)
        if not name.startswith("_") and inspect.isfunction(getattr(dialect, name))
    ]


def skipped(dialect, upstream, name):
    wanted = sys.argv[1:]
    if wanted and not any(fnmatch.fnmatch(name, pattern) for pattern in wanted):
        return True
    names = (name, f"{dialect}/{upstream}/{name}")
    return any(fnmatch.fnmatch(one, pattern) for one in names for pattern in SKIP)


def attempt(dialect, model, name):
    """Why the scenario failed, in one line, or None."""
    try:
        result = getattr(dialect(model), name)()
        if inspect.iscoroutine(result):
            LOOP.run(result)
    except Exception as error:
        here = str(Path(__file__).parent)
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(here)]
        lines = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if f.filename != __file__]
        place = lines[-1] if lines else "kit.py"
        return " ".join(f"{place} {type(error).__name__}: {error}".split())[:400]
    return None
