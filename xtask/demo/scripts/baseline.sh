#!/bin/bash
# What this machine is and how it is doing, on one page.
set -u

line() { printf '%-14s %s\n' "$1" "$2"; }

. /etc/os-release 2>/dev/null
line host "$(uname -n)"
line system "${PRETTY_NAME:-unknown}, Linux $(uname -r), $(uname -m)"
line up "$(awk '{d=int($1/86400); h=int($1%86400/3600); m=int($1%3600/60); printf "%d days %d hours %d minutes", d, h, m}' /proc/uptime)"
line load "$(cut -d' ' -f1-3 /proc/loadavg) on $(nproc) processors"
line memory "$(awk '/^MemTotal/{t=$2} /^MemAvailable/{a=$2} END{printf "%d of %d MiB available", a/1024, t/1024}' /proc/meminfo)"
line addresses "$(hostname -I 2>/dev/null | tr -s ' ' | sed 's/ $//')"
line users "$(awk -F: '$3>=1000 && $3<60000 {printf "%s ", $1}' /etc/passwd)"

echo
df -hT -x tmpfs -x devtmpfs -x overlay -x squashfs 2>/dev/null | head -12

echo
echo 'busiest processes:'
ps -eo pcpu,pmem,rss,comm --sort=-pcpu 2>/dev/null | head -6

if [ -f /var/run/reboot-required ]; then
    echo
    echo 'a reboot is required'
fi
