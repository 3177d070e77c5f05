# Client and server are killed at random moments: nothing of them is left, and started again they work.
# shellcheck shell=bash source=common.sh
. "$(dirname "$0")/common.sh"

if ((QUICK)); then rounds=6; else rounds=40; fi
RANDOM=$SEED

start echo /usr/bin/python3 "$(dirname "$0")/websocket.py" echo
port=$(said echo 'listening on [0-9]+')
target=127.0.0.1:${port##* }
# The same ports again and again: whoever starts wants them free.
port_of=([0]="$(free_port)" [1]="$(free_port)")
names=(server client)
"$TURBOTUNNEL" keygen server.key >server.pub
link=turbotunnel://$(<server.pub)@127.0.0.1:${port_of[0]}

# begin 0|1: starts the server or the client.
begin() {
    if (($1 == 0)); then
        start "server" "$TURBOTUNNEL" server "${port_of[0]}" --key server.key --to "$target" --drain 500ms
    else
        start "client" "$TURBOTUNNEL" client "$link" -L "${port_of[1]}" --drain 500ms
    fi
    pids[$1]=$pid
}

# Nobody listens there, in whatever network the kernel lists.
is_free() { ! grep -qE "^ *[0-9]+: [0-9A-F]+:$(printf '%04X' "$1") [0-9A-F]+:0000 0A " /proc/net/tcp /proc/net/tcp6; }
# A request for a page that is none: the WebSocket server says so, and hangs up.
served() { timeout --foreground 5 curl -q -s -o /dev/null --noproxy '*' "http://127.0.0.1:${port_of[1]}/"; }

pids=(0 0)
begin 0
begin 1
eventually 20 served || fail "not served at the beginning"
for n in 0 1; do
    ! is_free "${port_of[n]}" || fail "a port that is in use looks free"
done
touch files
find . | sort >files
declare -A times=()
for ((round = 1; round <= rounds; round++)); do
    who=$((RANDOM % 2)) how=$((RANDOM % 2)) wait_ms=$((RANDOM % 400)) busy=$((RANDOM % 2))
    signal=TERM
    if ((how)); then signal=KILL; fi
    what="round $round (seed $SEED): ${names[who]}, $signal after $wait_ms ms"
    # Sometimes amid a conversation.
    asking=
    if ((busy)); then
        timeout --foreground 30 /usr/bin/python3 "$(dirname "$0")/websocket.py" talk "${port_of[1]}" 20 >talk.log 2>&1 &
        asking=$!
    fi
    sleep "$(printf '0.%03d' "$wait_ms")"
    all=$(family "${pids[who]}")
    if ((CONTROL && round == 3)); then
        # As if it had left something.
        start left "$TURBOTUNNEL" lilbastard "$target" 127.0.0.1:0
        all+=" $pid"
    fi
    kill "-$signal" "${pids[who]}" || fail "$what: it was not there any more"
    eventually 4 gone "${pids[who]}" || fail "$what: it lives on"
    status=0
    wait "${pids[who]}" 2>/dev/null || status=$?
    # 1: streams were cut. 128 and more: the signal; TERM may come before anybody has asked for it.
    [[ $signal$status =~ ^(KILL137|TERM(0|1|143))$ ]] || fail "$what: exit $status"
    ! grep panicked "${names[who]}.log" >&2 || fail "$what: panicked"
    eventually 1 is_free "${port_of[who]}" || fail "$what: its port is not free"
    for pid in $all; do
        gone "$pid" || fail "$what: it has left process $pid"
    done
    if [[ $asking ]]; then
        kill "$asking" 2>/dev/null || true
        wait "$asking" 2>/dev/null || true
    fi
    begin "$who"
    # Half of the time the next is killed before this one stands.
    if ((RANDOM % 2)); then eventually 20 served || fail "$what: started again, it does not serve"; fi
    kind="${names[who]} $signal"
    times[$kind]=$((${times[$kind]:-0} + 1))
done
eventually 20 served || fail "seed $SEED: not served in the end"
rm -f talk.log
find . | sort | diff files - >&2 || fail "seed $SEED: files are left, or gone"

# -W while the server is away: nobody can be told of the end, and it ends all the same, once --drain is over.
stop "${pids[1]}" KILL
stop "${pids[0]}" KILL
start server "$TURBOTUNNEL" server "${port_of[0]}" --key server.key --to "$target" --allow "$target" --drain 500ms
server=$pid
eventually 20 answers "${port_of[0]}" || fail "-W: no server"
mkfifo in
start stdio bash -c "exec '$TURBOTUNNEL' client '$link' -W '$target' --drain 500ms <in"
stdio=$pid
# Its stdin stays open.
# shellcheck disable=SC2034
exec {typing}>in
said stdio ' up over ' >/dev/null
stop "$server" KILL
said stdio 'trying on' >/dev/null
kill -TERM "$stdio"
eventually 5 gone "$stdio" || fail "-W: 5 s after SIGTERM, with --drain 500ms and the server away, it is still there"

text=
for kind in "${!times[@]}"; do text+=", $kind ${times[$kind]}"; done
printf -- "-\t%s rounds%s (seed %s); -W ended without a server\n" "$rounds" "$text" "$SEED"
