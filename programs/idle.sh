# Clients with nothing to do, each with a connection through it that nobody uses: no measurable CPU, nor at the server.
# shellcheck shell=bash source=common.sh
. "$(dirname "$0")/common.sh"

if ((QUICK)); then idle=6; else idle=20; fi

start echo /usr/bin/python3 "$(dirname "$0")/websocket.py" echo
port=$(said echo 'listening on [0-9]+')
server "127.0.0.1:${port##* }"
server_pid=$pid
clients=()
for keepalive in 25s off; do
    start "client-$keepalive" "$TURBOTUNNEL" client "$link" -L 0 --drain 1s --keepalive "$keepalive"
    clients+=("$pid")
    here=$(said "client-$keepalive" 'forwarding 127\.0\.0\.1:[0-9]+')
    # Held open until this script ends.
    # shellcheck disable=SC2034
    exec {held}<>"/dev/tcp/127.0.0.1/${here##*:}"
    said "client-$keepalive" ' up over ' >/dev/null
    # As a control they are not idle: twenty messages a second.
    if ((CONTROL)); then
        start talk /usr/bin/python3 "$(dirname "$0")/websocket.py" talk "${here##*:}" "$((idle + 5))"
    fi
done

# Ticks of CPU, a hundred a second, of all threads.
ticks() {
    local stat
    stat=$(<"/proc/$1/stat")
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    echo $((${12} + ${13}))
}
# How often its threads went to sleep, so how often they were woken.
wakes() { awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n }' "/proc/$1/task/"*/status; }

all=("${clients[@]}" "$server_pid")
names=("client --keepalive 25s" "client --keepalive off" "server")
sleep 1
for pid in "${all[@]}"; do before+=("$(ticks "$pid") $(wakes "$pid")"); done
sleep "$idle"
said=()
for n in "${!all[@]}"; do
    read -r ticks_before wakes_before <<<"${before[n]}"
    used=$(($(ticks "${all[n]}") - ticks_before)) woken=$(($(wakes "${all[n]}") - wakes_before))
    said+=("${names[n]} $used ticks, woken $woken times")
    # Each tick is 10 ms: one in ten seconds is a thousandth of a processor.
    ((used <= idle / 10 + 1 && woken <= 10 * idle)) || fail "${names[n]}: $used ticks of CPU in $idle s, woken $woken times"
done
text=$(printf '; %s' "${said[@]}")
printf -- '-\tin %s s: %s\n' "$idle" "${text#; }"
