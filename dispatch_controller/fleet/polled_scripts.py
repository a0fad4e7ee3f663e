"""POSIX sh for nodes that keep their own `task-wrapper.sh`: one round trip for each verb.

What these scripts keep lies under ROOT/.dispatch/OWNER/polled/PROJECT/FOLDER/ (`$t`):

`lease-LEASE`  the lease's token. Linking it is atomic, so of a start and a `void` one alone gets
               it, whatever is still in a pipe. `void`, or `start` with what was started.
`current`      the token of the last start
`acked`        the same, once its end was acknowledged

A token of a start: `start LEASE ATTEMPT SEQUENCE PID`, then when that process started. The process
takes the token itself and becomes the wrapper (exec): there is no moment in between.
"""

from __future__ import annotations

_STARTED = 'TZ=UTC0 LC_ALL=C ps -o lstart= -p "$1" 2>/dev/null'

_PRELUDE = f"""
root=$1 owner=$2 project=$3 folder=$4 lease=$5
d=$root/$project/tasks/$folder
t=$root/.dispatch/$owner/polled/$project/$folder
started() {{ {_STARTED}; }}
"""

# What a started process runs first: it takes the token, or ends.
BECOME = f"""
t=$1 d=$2 lease=$3 attempt=$4 sequence=$5
shift 5
started() {{ {_STARTED}; }}
new=$t/new-$$
printf 'start %s %s %s %s\\n%s\\n' "$lease" "$attempt" "$sequence" "$$" "$(started $$)" > "$new"
ln "$new" "$t/lease-$lease" 2>/dev/null || {{
    rm -f "$new"
    [ -f "$t/lease-$lease" ] && echo taken
    exit
}}
# What an earlier attempt left must not be taken for this one's: old wrappers name no lease.
[ -f "$d/status.json" ] && mv -f "$d/status.json" "$d/status.before.json"
rm -f "$d/pid" "$d/heartbeat"
mv -f "$new" "$t/current"
trap '' HUP
echo started
exec >> "$d/wrapper.log" 2>&1
exec "$@"
"""

# As $1 to $5, then attempt, sequence, bytes of the spec, BECOME, the wrapper, the command.
START = (
    _PRELUDE
    + """
attempt=$6 sequence=$7 bytes=$8
shift 8
become=$1 wrapper=$2
shift 2
mkdir -p "$d" "$t"
spec=$d/spec.md.$$
trap 'rm -f "$spec"' EXIT
cat > "$spec"
size=$(wc -c < "$spec")
[ "$size" -eq "$bytes" ] || { echo "got $size of $bytes bytes" >&2; exit 65; }
refuse() { printf 'refused %s\n@end\n' "$1"; exit 0; }
taken() {
    read -r word _ < "$t/lease-$lease"
    [ "$word" = void ] && refuse void
    refuse stale
}
lives() {
    ps -A -o pgid=,pid=,stat= |
        awk -v p="$1" '($1 == p || $2 == p) && $3 !~ /^Z/ { f = 1 } END { exit !f }'
}
[ -x "$wrapper" ] || refuse wrapper_error
if [ -f "$t/current" ]; then
    read -r _ _ _ _ pid < "$t/current"
    lives "$pid" && refuse alive
elif [ ! -f "$t/acked" ] && [ -s "$d/pid" ]; then
    lives "$(cat "$d/pid")" && refuse alive
fi
[ -f "$t/lease-$lease" ] && taken
for last in "$t/current" "$t/acked"; do
    [ -f "$last" ] || continue
    read -r _ _ _ before _ < "$last"
    [ "$sequence" -gt "$before" ] || refuse stale
done
mv -f "$spec" "$d/spec.md"
if command -v setsid > /dev/null 2>&1; then detach=setsid; else detach=perl; fi
session() {
    if [ $detach = setsid ]; then exec setsid "$@"; fi
    exec perl -MPOSIX -e 'POSIX::setsid(); exec @ARGV or die' "$@"
}
# The answer is complete when the process has become the wrapper and let go of this pipe.
answer=$( (session sh -c "$become" sh "$t" "$d" "$lease" "$attempt" "$sequence" "$@") \\
    < /dev/null 2> /dev/null & )
case $answer in
    started) read -r _ _ _ _ pid < "$t/lease-$lease"; printf 'running %s\\n@end\\n' "$pid" ;;
    taken) taken ;;
    *) echo "the wrapper could not be started" >&2; exit 70 ;;
esac
"""
)
VOID = (
    _PRELUDE
    + """
mkdir -p "$t"
new=$t/new-$$
echo void > "$new"
ln "$new" "$t/lease-$lease" 2> /dev/null || :
rm -f "$new"
sync "$t/lease-$lease" "$t" 2> /dev/null || sync
read -r word _ < "$t/lease-$lease"
printf '%s\\n@end\\n' "$word"
"""
)

# $1 root, $2 owner. Old folders without a token are told while they are younger than two weeks:
# what an older controller started is found again. Content goes out behind a `|`, so nothing in a
# file can look like a line of ours.
COLLECT = """
root=$1 owner=$2
cd "$root" || exit 66
echo "now $(date +%s)"
show='FNR == 1 { print "file " FILENAME } { print "|" $0 }'
if [ -d ".dispatch/$owner/polled" ]; then
    find "./.dispatch/$owner/polled" -type f \\( -name current -o -name acked \\) \\
        -exec awk "$show" {} + || exit 67
fi
if stat -c %Y . > /dev/null 2>&1; then set -- -c 'stat %Y %s %n'; else set -- -f 'stat %m %z %N'; fi
for tasks in ./*/tasks; do
    [ -d "$tasks" ] || continue
    find "$tasks" -mindepth 2 -maxdepth 2 -type f -mtime -14 \\
        \\( -name status.json -o -name heartbeat -o -name pid \\) -exec awk "$show" {} + || exit 67
    find "$tasks" -mindepth 2 -maxdepth 2 -type f -mtime -14 \\
        \\( -name status.json -o -name task.log \\) -exec stat "$@" {} + || exit 67
done
TZ=UTC0 LC_ALL=C ps -A -o pid=,pgid=,stat=,time=,lstart= | sed 's/^/process /' || exit 68
echo @end
"""

# As $1 to $5, then $6 pid, $7 grace. The group's leader was just seen to be the one recorded.
KILL = (
    _PRELUDE
    + """
pid=$6 grace=$7
kill -s TERM -- "-$pid" 2> /dev/null || { printf 'gone\\n@end\\n'; exit 0; }
(trap '' HUP; sleep "$grace"; kill -s KILL -- "-$pid") < /dev/null > /dev/null 2>&1 &
printf 'ending\\n@end\\n'
"""
)

# As $1 to $5.
ACK = (
    _PRELUDE
    + """
mkdir -p "$t"
if [ -f "$t/current" ]; then
    read -r _ known _ < "$t/current"
    if [ "$known" = "$lease" ]; then mv -f "$t/current" "$t/acked"; fi
elif [ ! -f "$t/acked" ]; then
    echo "start - 0 0 0" > "$t/acked"
fi
echo @end
"""
)

# $1 root, $2 wrapper, then the programs asked for.
PROBE = """
root=$1 wrapper=$2
shift 2
echo "now $(date +%s)"
mkdir -p "$root"
echo "load $(cat /proc/loadavg 2>/dev/null || sysctl -n vm.loadavg | tr -d '{}')"
echo "cpus $(getconf _NPROCESSORS_ONLN)"
echo "disk $(df -Pk "$root" | awk 'NR == 2 { print $2, $4 }')"
if [ -r /proc/meminfo ]; then
    awk '$1 == "MemTotal:" { t = $2 } $1 == "MemAvailable:" { a = $2 }
        END { print "memory", t, a }' /proc/meminfo
else
    echo "memory $(($(sysctl -n hw.memsize) / 1024))"
fi
echo "boot $(cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.boottime)"
echo "wrapper $( (sha256sum "$wrapper" || shasum -a 256 "$wrapper") 2>/dev/null | cut -c 1-64)"
echo "python $(python3 --version 2>/dev/null)"
echo "git $(git --version 2>/dev/null)"
for program in "$@"; do
    place=$(command -v "$program") && echo "agent $program $place"
done
echo @end
"""

# $1 root, $2 project, $3 folder, $4 name, $5 offset, $6 limit.
LOG = """
cd "$1/$2/tasks" || exit 66
for part in "$1/$2" "$1/$2/tasks" "$3" "$3/$4"; do
    [ ! -L "$part" ] || { echo "$part is a link, and not followed" >&2; exit 69; }
done
[ -f "$3/$4" ] || { printf '0\\n\\n@end\\n'; exit 0; }
wc -c < "$3/$4"
tail -c "+$(($5 + 1))" "$3/$4" | head -c "$6"
printf '\\n@end\\n'
"""
