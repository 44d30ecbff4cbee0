#!/bin/bash
# Fails when a systemd unit has failed, or one of the named units is not active.
#   service_health.sh [UNIT...]
set -u

if [ ! -d /run/systemd/system ]; then
    echo 'this machine does not run systemd: nothing to check'
    exit 0
fi
bad=0
while read -r unit _; do
    [ -n "$unit" ] || continue
    bad=1
    echo "FAILED  $unit"
    journalctl --no-pager --quiet --unit "$unit" --lines 5 --output cat 2>/dev/null | sed 's/^/        /'
done < <(systemctl list-units --failed --plain --no-legend)
for unit in "$@"; do
    state=$(systemctl is-active "$unit")
    printf '%-7s %s\n' "$state" "$unit"
    [ "$state" = active ] || bad=1
done
if [ "$bad" = 0 ]; then echo 'all units are well'; fi
exit "$bad"
