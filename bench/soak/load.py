"""What befalls the gateway besides plain load: callers that leave, a model whose endpoint fails, reloads."""

import http.client
import http.server
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from pathlib import Path

CALL = {"max_completion_tokens": 64, "messages": [{"role": "user", "content": "What is a river? " * 20}]}


def shaky(port):
    """An endpoint that answers every other call, refuses or hangs up at the others, and is slow now and then."""

    class Answers(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            fate = random.randrange(8)
            if fate == 0:
                time.sleep(0.5)
            body = {"id": "c", "object": "chat.completion", "created": 1795000000, "model": "shaky",
                    "choices": [{"index": 0, "finish_reason": "stop",
                                 "message": {"role": "assistant", "content": "It is water that goes downhill."}}],
                    "usage": {"prompt_tokens": 90, "completion_tokens": 9, "total_tokens": 99}}
            text = json.dumps(body).encode()
            if fate in (1, 2):
                text = b'{"error":{"message":"down","type":"server_error","code":null}}'
            self.send_response(500 if fate in (1, 2) else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text[: len(text) // 2] if fate == 3 else text)
            self.close_connection = fate == 3

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Answers).serve_forever()


def request(port, **more):
    body = json.dumps(CALL | more).encode()
    head = (f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {os.environ['PARETO_KEY']}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n").encode()
    connection = socket.create_connection(("127.0.0.1", int(port)), 5)
    connection.sendall(head + body)
    return connection


def leave(port):
    """Streams that are left after a moment, some of them before their first byte."""
    while True:
        try:
            connection = request(port, model="auto", stream=True)
            connection.settimeout(0.2)
            until = time.monotonic() + random.random() * 0.3
            while time.monotonic() < until and connection.recv(4096):
                pass
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)


def unsteady(port):
    """Calls of the model whose endpoint fails, from a few callers."""

    def calls():
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
                headers = {"authorization": f"Bearer {os.environ['PARETO_KEY']}", "content-type": "application/json"}
                for _ in range(20):
                    connection.request("POST", "/v1/chat/completions", json.dumps(CALL | {"model": "unsteady"}), headers)
                    connection.getresponse().read()
                    time.sleep(0.1)
                connection.close()
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)

    for _ in range(4):
        threading.Thread(target=calls, daemon=True).start()
    signal.pause()


def reload(process, path):
    """Changes a limit and has the gateway read its configuration again."""
    first = Path(path).read_text()
    for number in range(1_000_000):
        time.sleep(15)
        Path(path).write_text(first.replace('limit_usd = "100000000"', f'limit_usd = "10000000{number % 9}"'))
        os.kill(int(process), signal.SIGHUP)


{"shaky": shaky, "leave": leave, "unsteady": unsteady, "reload": reload}[sys.argv[1]](*sys.argv[2:])
