"""Reads what `run` kept and prints it as a table, with the three ratios it is about."""

import json
import sys
from pathlib import Path

folder, rate, places = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
names = {
    "alone": "interactive alone",
    "peak": "as much as it takes",
    "urgent": "x 3: interactive",
    "batch": "x 3: batch",
    "best": "x 3: best effort",
    "after": "interactive, after it",
}
targets = {name: json.loads((folder / f"{name}.json").read_text())["targets"][0] for name in names}
figures = {name: target["figures"] for name, target in targets.items()}

print(f"\n{rate} calls/s of each kind, {places} places, an endpoint of 100 ms\n")
print("| | served/s | p50 ms | p99 ms | refused | other errors |\n|---|---|---|---|---|---|")
for name, title in names.items():
    it, errors = figures[name], targets[name]["errors"]
    refused = errors["status_5xx"] + errors["status_429"]
    others = sum(errors.values()) - refused
    # Where all were turned away there is no time that an answer took.
    times = (f"{it[key] / 1e3:.1f}" if key in it else "-" for key in ("latency_p50_us", "latency_p99_us"))
    print(f"| {title} | {it['calls_per_s']:.0f} | {' | '.join(times)} | {refused} | {others} |")
goodput = sum(figures[name]["calls_per_s"] for name in ("urgent", "batch", "best"))
print(f"\ngoodput at three times the rate: {goodput / figures['peak']['calls_per_s']:.2f} x peak")
print(f"interactive p99 there: {figures['urgent']['latency_p99_us'] / figures['alone']['latency_p99_us']:.2f} x alone")
print(f"interactive p99 in the five seconds after it: {figures['after']['latency_p99_us'] / figures['alone']['latency_p99_us']:.2f} x alone")
