"""Prints what the clients' scripts reported as one table: scenarios down, clients across, and in each
cell the upstream dialects that passed: c for chat completions, r for responses, m for messages."""

import sys
from pathlib import Path

MARKS = {"chat": "c", "responses": "r", "messages": "m"}


def main(folder):
    versions, passed, failed = {}, {}, []
    for file in sorted(Path(folder).glob("*.tsv")):
        for line in file.read_text().splitlines():
            kind, *fields = line.split("\t")
            if kind == "version":
                versions[fields[0]] = fields[1]
            elif kind in ("ok", "FAIL"):
                client, spoken, upstream, scenario = fields[:4]
                cell = passed.setdefault(scenario, {}).setdefault((client, spoken), {})
                cell[upstream] = kind == "ok"
                if kind == "FAIL":
                    failed.append(line)
    columns = sorted({column for row in passed.values() for column in row})
    print("client, its version and the dialect it speaks:")
    for number, (client, spoken) in enumerate(columns, 1):
        print(f"  {number:2}  {client} {versions.get(client, '')}, {spoken}")
    width = max(map(len, passed), default=0)
    print(f"\n{'scenario':{width}} " + "".join(f"{n:>4}" for n in range(1, len(columns) + 1)))
    for scenario in sorted(passed):
        cells = (passed[scenario].get(column) for column in columns)
        print(f"{scenario:{width}} " + "".join(f"{shown(cell):>4}" for cell in cells))
    total = sum(len(cell) for row in passed.values() for cell in row.values())
    print(f"\n{total - len(failed)} of {total} passed; c, r, m: an upstream of chat completions, responses, messages")
    print("\n".join(failed))
    return 1 if failed or not total else 0


def shown(cell):
    if not cell:
        return "."
    marks = "".join(mark if cell[name] else "X" for name, mark in MARKS.items() if name in cell)
    return marks + "*" * sum(name not in MARKS for name in cell)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
