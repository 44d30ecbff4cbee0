#!/bin/bash
# Fails when a file system is fuller than the limit, and names its largest directories.
#   disk_usage.sh --limit=PERCENT
set -u

limit=
for argument in "$@"; do
    case $argument in
        --limit=*) limit=${argument#--limit=} ;;
        *) echo "unknown argument $argument" >&2; exit 2 ;;
    esac
done
case $limit in
    ''|*[!0-9]*) echo 'give a limit in per cent: --limit=85' >&2; exit 2 ;;
esac

full=0
while read -r percent inodes mount; do
    percent=${percent%\%}; inodes=${inodes%\%}
    state=ok
    if [ "$percent" -gt "$limit" ] || { [ "$inodes" != - ] && [ "$inodes" -gt "$limit" ]; }; then
        state=FULL; full=1
    fi
    printf '%-5s %3s %% of space, %3s %% of inodes  %s\n' "$state" "$percent" "$inodes" "$mount"
    if [ "$state" = FULL ]; then
        timeout 60 du -xh --max-depth=2 "$mount" 2>/dev/null | sort -rh | head -5 | sed 's/^/        /'
    fi
done < <(df --local --output=pcent,ipcent,target -x tmpfs -x devtmpfs -x squashfs | tail -n +2)
exit "$full"
