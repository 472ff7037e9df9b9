"""Reads metrics and what criterion has measured, and prints how far they agree."""

import json
import os
import re
import statistics
import sys
import urllib.request
from pathlib import Path

PHASES = ["parse", "decide", "hold", "journal", "relay"]
BESIDE = ["upstream", "sync"]
ALLOWED = 0.20


def built(path):
    """The program that cargo has made of the bench."""
    for line in Path(path).read_text().splitlines():
        told = json.loads(line)
        if told.get("executable") and told.get("target", {}).get("name") == "phases":
            print(told["executable"])


def scrape(url, token):
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {Path(token).read_text().strip()}"})
    with urllib.request.urlopen(request) as answer:
        sys.stdout.write(answer.read().decode())


def histograms(path):
    """By phase: sum, count, and how many took as long as each bound at most."""
    found = {}
    pattern = re.compile(r"^pareto_phase_seconds_(sum|count|bucket)\{(.*)\} (\S+)$")
    for line in Path(path).read_text().splitlines():
        if not (match := pattern.match(line)):
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
        one = found.setdefault(labels["phase"], {"bucket": {}})
        if match[1] == "bucket":
            one["bucket"][float(labels["le"].replace("+Inf", "inf"))] = float(match[3])
        else:
            one[match[1]] = float(match[3])
    return found


def median(before, behind):
    """The median in between, in microseconds, on a line through its bucket."""
    steps = sorted(behind["bucket"])
    counts = [behind["bucket"][it] - before["bucket"].get(it, 0) for it in steps]
    wanted, low, under = counts[-1] / 2, 0.0, 0.0
    for bound, count in zip(steps, counts):
        if count >= wanted:
            return 1e6 * (low + (bound - low) * (wanted - under) / max(count - under, 1))
        low, under = bound, count
    return float("nan")


def production(keep, rounds, phase):
    """Medians and means of all rounds, and how many calls were measured."""
    medians, means, calls = [], [], 0
    for number in range(1, rounds + 1):
        before, behind = (histograms(keep / f"{when}-{number}") for when in ("before", "behind"))
        if phase not in behind:
            continue
        nothing = {"bucket": {}, "sum": 0, "count": 0}
        one, two = before.get(phase, nothing), behind[phase]
        medians.append(median(one, two))
        means.append(1e6 * (two["sum"] - one["sum"]) / (two["count"] - one["count"]))
        calls += int(two["count"] - one["count"])
    return medians, means, calls


def alone(keep, rounds, phase):
    paths = [keep / f"alone-{it}" / "phases" / phase / "new" / "estimates.json" for it in range(1, rounds + 2)]
    return [json.loads(path.read_text())["median"]["point_estimate"] / 1e3 for path in paths]


def span(values):
    return f"{min(values):.1f} to {max(values):.1f}"


def table(keep, rounds, connections):
    keep, rounds = Path(keep), int(rounds)
    cores = os.cpu_count()
    print("# Phases of a call\n")
    print(f"`bench/phases/run` has written this: {rounds} rounds, {connections} call(s) of 1 KB at once, on {cores} cores,")
    print(f"load {os.getloadavg()[0]:.1f} at the end. Production is `pareto_phase_seconds` of a gateway with everything on before")
    print("`bench fixed`; by itself is `cargo bench -p proxy --bench phases`, the same service under the same load,")
    print("with every lap kept as it is, run before and behind each window. Both are")
    print("medians over calls, and the figure is the median over rounds: a lap is time on the wall, so that a mean holds what")
    print("the machine did instead. Buckets are a quarter wide, and the median is read on a line through its own.\n")
    print("| phase | production, median us | over rounds | mean us | by itself, median us | over rounds | ratio | within 20 % |")
    print("|---|---|---|---|---|---|---|---|")
    sums, calls = [0.0, 0.0], 0
    for phase in PHASES:
        medians, means, calls = production(keep, rounds, phase)
        own = alone(keep, rounds, phase)
        here, there = statistics.median(medians), statistics.median(own)
        sums = [sums[0] + here, sums[1] + there]
        ratio = here / there
        verdict = "yes" if abs(ratio - 1) <= ALLOWED else "**no**"
        print(f"| {phase} | {here:.1f} | {span(medians)} | {statistics.median(means):.1f} | {there:.1f} | {span(own)} | {ratio:.2f} | {verdict} |")
    ratio = sums[0] / sums[1]
    verdict = "yes" if abs(ratio - 1) <= ALLOWED else "**no**"
    print(f"| all five | {sums[0]:.1f} | | | {sums[1]:.1f} | | {ratio:.2f} | {verdict} |")
    beside = []
    for phase in BESIDE:
        medians, means, _ = production(keep, rounds, phase)
        beside.append(f"`{phase}` {statistics.median(medians):.1f} us (mean {statistics.median(means):.1f})")
    print(f"\n{calls} calls in the last window. Waiting, which no bench has: {', '.join(beside)}.")


{"built": built, "scrape": scrape, "table": table}[sys.argv[1]](*sys.argv[2:])
