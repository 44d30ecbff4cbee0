#!/bin/bash
# Lists what apt would upgrade, security updates first. Changes nothing: neither packages nor lists.
set -u

if ! command -v apt-get >/dev/null; then
    echo 'this machine has no apt'
    exit 0
fi
lists=$(find /var/lib/apt/lists -maxdepth 1 -type f -name '*Packages*' -printf '%T@\n' 2>/dev/null | sort -n | tail -1)
if [ -n "$lists" ]; then
    age=$(( ( $(date +%s) - ${lists%.*} ) / 86400 ))
    echo "package lists are $age days old"
    if [ "$age" -gt 7 ]; then echo 'that is too old to rely on: run apt-get update'; fi
fi

plan=$(apt-get --simulate --quiet dist-upgrade 2>/dev/null | grep '^Inst ')
if [ -z "$plan" ]; then
    echo 'nothing to upgrade'
    exit 0
fi
security=$(grep -i security <<<"$plan")
echo "$(grep -c . <<<"$plan") upgrades, $(grep -c . <<<"$security") of them for security"
{ echo "$security"; grep -vi security <<<"$plan"; } | awk 'NF {gsub(/[][()]/, ""); printf "  %-40s %s -> %s\n", $2, $3, $4}'
