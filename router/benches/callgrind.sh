#!/bin/sh
# Instructions that the classifier takes for each KB of a 4 KB prompt, counted by valgrind: two runs that differ
# in their calls alone, so that start-up does not count. Run from the workspace.
set -eu
bench=$(cargo bench -p router --bench classify --no-run 2>&1 | sed -n 's/.*(\(.*classify-[0-9a-f]*\)).*/\1/p')
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$bench" "$1" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
few=$(count 100)
many=$(count 1100)
echo "$(((many - few) / 1000 / 4)) instructions per KB"
