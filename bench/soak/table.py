"""Looks at a gateway now and then, draws what it saw, and says whether it stayed as it was."""

import csv
import os
import re
import statistics
import sys
import time
import urllib.request
from pathlib import Path

MIB = 1 << 20
# Column, unit, and what it may grow by over the second half: a share of its median, or so much, whichever is more. Memory:
# what the allocator keeps moves by some MiB. Store: one segment of the journal is made, one is kept for the next.
BOUNDS = {
    "rss_mib": (0.05, 12.0),
    "files": (0.05, 24.0),
    "threads": (0.0, 2.0),
    "in_flight": (0.25, 24.0),
    "connections": (0.25, 24.0),
    "holds": (0.25, 24.0),
    "store_mib": (0.10, 24.0),
    "lag_kib": (0.25, 1024.0),
    "late_ms": (0.25, 100.0),
}
SHOWN = ["ledger_mib", "entries", "bytes_an_entry", "context_mib"]


def metrics(admin, folder):
    token = (folder / "admin.token").read_text().strip()
    request = urllib.request.Request(f"http://127.0.0.1:{admin}/metrics", headers={"authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read().decode()

    def of(name):
        return sum(float(it) for it in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.M))

    return of


def sizes(folder):
    """Bytes of the ledger, which grows with every call, and of all else, which must not."""
    ledger = rest = 0
    for path in folder.rglob("*"):
        try:
            size = path.stat().st_blocks * 512 if path.is_file() else 0
        except FileNotFoundError:
            continue
        if path.name.startswith("ledger.sqlite3"):
            ledger += size
        else:
            rest += size
    return ledger, rest


def sample(process, admin, folder, began):
    status = Path(f"/proc/{process}/status").read_text()
    of = metrics(admin, folder)
    ledger, rest = sizes(folder)
    entries = of("pareto_upstream_attempts_total")
    return {
        "seconds": round(time.monotonic() - began, 1),
        "rss_mib": round(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024, 1),
        "files": len(os.listdir(f"/proc/{process}/fd")),
        "threads": int(re.search(r"Threads:\s+(\d+)", status)[1]),
        "in_flight": of("pareto_in_flight"),
        "connections": of("pareto_connections"),
        "holds": of("pareto_holds_inflight"),
        "store_mib": round(rest / MIB, 1),
        "lag_kib": round(of("pareto_ledger_lag_bytes") / 1024, 1),
        "late_ms": round(of("pareto_worker_lag_seconds") * 1e3, 1),
        "ledger_mib": round(ledger / MIB, 1),
        "entries": int(entries),
        "bytes_an_entry": round(ledger / max(entries, 1)),
        "context_mib": round(of("pareto_context_bytes") / MIB, 2),
    }


def watch(process, admin, folder, seconds, every, out):
    began, folder = time.monotonic(), Path(folder)
    with open(out, "w", newline="") as file:
        writer = None
        while (at := time.monotonic() - began) < float(seconds):
            row = sample(process, admin, folder, began)
            if writer is None:
                writer = csv.DictWriter(file, row)
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)
            time.sleep(max(0.0, float(every) - (time.monotonic() - began - at)))


def slope(times, values):
    """The median of the slopes between all pairs: one odd sample moves it by nothing."""
    pairs = [(values[b] - values[a]) / (times[b] - times[a]) for a in range(len(times)) for b in range(a + 1, len(times))]
    return statistics.median(pairs)


def picture(rows, names, path):
    wide, high, gap = 860, 90, 26
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide + 20}" height="{(high + gap) * len(names) + 10}" '
             'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>']
    last = rows[-1]["seconds"] or 1
    for number, name in enumerate(names):
        values = [row[name] for row in rows]
        top, low, y = max(values), min(min(values), 0), number * (high + gap) + 20
        span = (top - low) or 1
        points = " ".join(f"{10 + wide * row['seconds'] / last:.1f},{y + high - high * (row[name] - low) / span:.1f}" for row in rows)
        parts.append(f'<text x="10" y="{y - 5}">{name}: {values[0]:g} to {values[-1]:g}, at most {top:g}</text>'
                     f'<line x1="10" x2="{wide + 10}" y1="{y + high}" y2="{y + high}" stroke="#ccc"/>'
                     f'<line x1="{10 + wide / 2}" x2="{10 + wide / 2}" y1="{y}" y2="{y + high}" stroke="#ccc"/>'
                     f'<polyline points="{points}" fill="none" stroke="#246"/>')
    Path(path).write_text("\n".join([*parts, "</svg>"]))


def judge(path, drawn):
    with open(path) as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    picture(rows, [*BOUNDS, *SHOWN], drawn)
    half = [row for row in rows if row["seconds"] >= rows[-1]["seconds"] / 2]
    times, failed = [row["seconds"] for row in half], []
    length = times[-1] - times[0]
    print(f"\n{len(rows)} samples; over the second half ({length / 60:.1f} minutes)\n")
    print("| | median | grew by | may grow by | |\n|---|---|---|---|---|")
    for name, (share, least) in BOUNDS.items():
        values = [row[name] for row in half]
        middle = statistics.median(values)
        grew, bound = slope(times, values) * length, max(share * abs(middle), least)
        failed += [name] if grew > bound else []
        print(f"| {name} | {middle:g} | {grew:.2f} | {bound:.2f} | {'**grows**' if grew > bound else 'flat'} |")
    first, last = rows[0], rows[-1]
    entries = last["entries"] - first["entries"]
    each = (last["ledger_mib"] - first["ledger_mib"]) * MIB / max(entries, 1)
    print(f"\n{entries:.0f} entries, {each:.0f} bytes of ledger each; context {last['context_mib']:g} MiB")
    if failed:
        sys.exit(f"grows: {', '.join(failed)}")


{"watch": watch, "judge": judge}[sys.argv[1]](*sys.argv[2:])
