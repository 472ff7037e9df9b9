"""Writes the results of a run as Markdown, from the JSON of its series."""

import json
import pathlib
import re
import sys
import time

folder = pathlib.Path(sys.argv[1])
about = [line.split("\t") for line in (folder / "about.tsv").read_text().splitlines()]
said = {kind: text for kind, name, text in about if not name}


def series(name):
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def number(value):
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def interval(report, part, target, figure):
    for it in report[part] if report else []:
        if it["target"] == target and it["figure"] == figure:
            over = it["over"]
            return f"{number(over['median'])} ({number(over['low'])} to {number(over['high'])})"
    return "-"


def plain(report, target, figure):
    for it in report["targets"] if report else []:
        if it["name"] == target and figure in it["figures"]:
            return number(it["figures"][figure])
    return "-"


def table(head, rows):
    rows = [row for row in rows if any(cell != "-" for cell in row[1:])]
    if not rows:
        return
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


all_series = ["memory", "small", "large", "paced", "within", "burst", "rate", "slow", "slow-large", "slow-paced"]
reports = {name: series(name) for name in all_series}
ran = [report for report in reports.values() if report]
names = []
for report in ran:
    names += [it["name"] for it in report["targets"] if it["name"] not in names]
fast = [name for name in names if name not in ("litellm", "portkey", "direct")]
if not ran:
    sys.exit("no series has run")
conditions = ran[0]["conditions"]
# Where files were kept is nobody's business.
command = re.sub(r" --(keep|out) \S+| --no-build", "", said["command"])
busy = [report["conditions"]["load_average"] for report in ran if "load_average" in report["conditions"]]
day = time.strftime("%Y-%m-%d", time.gmtime(conditions["unix_s"]))

print("# Peers and Pareto before the same endpoint\n")
print(f"`{command}` on {day}: {conditions['cores']} cores ({conditions['cpu']}), Linux {conditions['kernel']}; "
      f"{said['pinned']}"
      + (f"; load average {min(busy)} to {max(busy)}, of which the run itself is about 2" if busy else "") +
      ". Ratios are medians over rounds, each round divided by the nginx rounds around it in time; in "
      "brackets 95 % of resampled medians. Absolute times and costs move with the machine and are only for orientation. "
      "What each peer was told to do is in `bench/peers/`: nginx, haproxy and the floor read no JSON; vllm-router and "
      "sglang-router check no key; LiteLLM has a master key and no database; pareto has everything on.\n")

cpu = "cpu_s_per_1000_calls"
chunk = "cpu_s_per_1000_chunks"

def micros(report, name, figure):
    text = plain(report, name, figure)
    return text if text == "-" else number(1000 * next(
        it["figures"][figure] for it in report["targets"] if it["name"] == name))


if any(reports[name] for name in ("small", "large", "paced", "within", "burst")):
    print("## Processor time as a multiple of nginx\n")
    table(["", "1 KB call", "100 KB call, `model` last", "chunk at a 10 ms gap, streams of 100", "within a stream", "chunk at saturation"],
          [[name, interval(reports["small"], "ratios", name, cpu), interval(reports["large"], "ratios", name, cpu),
            interval(reports["paced"], "ratios", name, chunk), interval(reports["within"], "ratios", name, chunk),
            interval(reports["burst"], "ratios", name, chunk)]
           for name in fast])
    print("Microseconds of processor time in the same runs, medians:\n")


    table(["", "1 KB call", "100 KB call", "paced chunk, streams of 100", "within a stream", "chunk at saturation", "calls/s, 1 KB", "chunks/s at saturation"],
          [[name, micros(reports["small"], name, cpu), micros(reports["large"], name, cpu),
            micros(reports["paced"], name, chunk), micros(reports["within"], name, chunk), micros(reports["burst"], name, chunk),
            plain(reports["small"], name, "calls_per_s"), plain(reports["burst"], name, "chunks_per_s")] for name in fast])

if reports["rate"]:
    print("## Added latency at 1,000 calls a second\n")
    print("Microseconds more than a direct call, open loop, from the planned start; and as a multiple of what nginx adds.\n")
    rate = reports["rate"]
    late = max(it["figures"].get("lag_p99_us", 0) for it in rate["targets"])
    if late > 500:
        print(f"**Not to be relied on:** other work on the machine made the load itself up to {late / 1000:.1f} ms late (p99), "
              "so these times are largely not the servers'. Repeat `bench/peers/run --series rate` on a quiet machine.\n")
    table(["", "p50", "p99", "p50, times nginx", "p99, times nginx"],
          [[name] + [interval(rate, part, name, figure) for part in ("added", "added_ratios")
                     for figure in ("latency_p50_us", "latency_p99_us")] for name in fast])

if reports["memory"]:
    opened = plain(reports["memory"], "nginx", "open")
    print(f"## Memory for {opened} paced streams\n")
    print("Growth of resident memory from fresh processes, for each stream; before, at most, and fifteen seconds after.\n")
    table(["", "KiB per stream", "before, MiB", "peak, MiB", "after, MiB", "gap p99, ms"],
          [[name, plain(reports["memory"], name, "kib_per_stream")]
           + [number(it["figures"][key] / 1024) if key in it["figures"] else "-"
              for key in ("rss_before_kib", "rss_peak_kib", "rss_after_kib")]
           + [number(it["figures"]["gap_p99_us"] / 1000) if "gap_p99_us" in it["figures"] else "-"]
           for name in fast for it in reports["memory"]["targets"] if it["name"] == name])

if reports["slow"]:
    print("## Peers that are far slower, against nginx at a load they bear\n")
    print("Four connections, or five streams at a 50 ms gap: so few that nginx itself is mostly woken up and costs more than above.\n")
    table(["", "1 KB call", "100 KB call", "paced chunk", "calls/s, 1 KB", "p50, ms"],
          [[name, interval(reports["slow"], "ratios", name, cpu), interval(reports["slow-large"], "ratios", name, cpu),
            interval(reports["slow-paced"], "ratios", name, chunk), plain(reports["slow"], name, "calls_per_s"),
            number(next(it["figures"].get("latency_p50_us", 0) for it in reports["slow"]["targets"] if it["name"] == name) / 1000)]
           for name in names if name in ("nginx", "litellm", "portkey")])

print("## Versions\n")
table(["peer", "version"], [[name, text] for kind, name, text in about if kind == "version"])
errors = []
for name, report in reports.items():
    for it in report["targets"] if report else []:
        kinds = [f"{count:,} {kind}" for kind, count in it["errors"].items() if count]
        if kinds:
            errors.append([name, it["name"], f"{it['good']:,}", ", ".join(kinds)])
print("## Errors\n")
if errors:
    table(["series", "target", "good calls", "errors"], errors)
else:
    print("None, in any series, of any target.\n")
left = [[name, text] for kind, name, text in about if kind == "reason"]
if left:
    print("## Not run\n")
    table(["peer", "what and why"], left)
