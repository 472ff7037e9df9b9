"""Asks a peer for a plain or a streamed answer and holds it against the endpoint's own."""

import json
import re
import sys
import urllib.request


def ask(url, headers, streamed):
    body = {"model": "auto", "max_completion_tokens": 640,
            "messages": [{"role": "user", "content": "caf\u00e9 \"x\"\n<<fixed chunks=5 gap_us=1000>>"}]}
    if streamed:
        body["stream"] = True
    call = urllib.request.Request(url + "/chat/completions", json.dumps(body).encode(),
                                  {"content-type": "application/json", **headers})
    with urllib.request.urlopen(call, timeout=30) as answer:
        return answer.read().decode()


def text_of(url, headers, streamed):
    """What the answer says, without the times of sending."""
    if not streamed:
        plain = json.loads(ask(url, headers, False))
        return [plain["choices"][0]["message"]["content"], plain["usage"]["completion_tokens"]]
    events = [line[5:].strip() for line in ask(url, headers, True).splitlines() if line.startswith("data:")]
    if events[-1] != "[DONE]":
        raise ValueError(f"the stream ends with {events[-1][:100]}")
    pieces = []
    for event in events[:-1]:
        event = json.loads(event)
        if "error" in event:
            raise ValueError(f"an error in the stream: {json.dumps(event)[:200]}")
        for choice in event["choices"]:
            pieces.append(choice["delta"].get("content") or "")
    return [re.sub("~t[0-9a-f]{16}", "~t", piece) for piece in pieces if piece]


def main():
    kind, direct, url, *headers = sys.argv[1:]
    headers = dict(header.split(": ", 1) for header in headers)
    try:
        wanted, got = (text_of(url, headers, kind == "stream") for url, headers in ((direct, {}), (url, headers)))
    except urllib.error.HTTPError as error:
        sys.exit(f"status {error.code}: {error.read()[:200].decode(errors='replace')}")
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if got != wanted:
        sys.exit(f"it answers {str(got)[:200]} and not {str(wanted)[:200]}")


main()
