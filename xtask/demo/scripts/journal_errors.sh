#!/bin/bash
# Counts errors of the last hour by program, with the latest message of each.
set -u

if ! command -v journalctl >/dev/null || ! journalctl --quiet --lines 0 2>/dev/null; then
    echo 'this machine keeps no journal'
    exit 0
fi
journalctl --no-pager --quiet --priority err --since -1h --output short 2>/dev/null | awk '
    {
        program = $5
        sub(/\[[0-9]+\]:?$/, "", program); sub(/:$/, "", program)
        message = $0
        for (i = 1; i <= 5; i++) sub(/^[^ ]+ +/, "", message)
        count[program]++
        latest[program] = message
    }
    END {
        for (program in count) printf "%6d  %-24s %s\n", count[program], program, substr(latest[program], 1, 160)
        if (NR == 0) print "no errors in the last hour"
    }' | sort -rn
