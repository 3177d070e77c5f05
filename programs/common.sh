# What the scripts of this folder share. Sourced by them, with what `run` exports: TURBOTUNNEL, WORK, QUICK, CONTROL, SEED.
# shellcheck shell=bash
set -euo pipefail
: "${TURBOTUNNEL:?started by programs/run}" "${WORK:?}" "${QUICK:?}" "${CONTROL:?}" "${SEED:?}"

# Only what is in WORK is written to, by turbotunnel and by the programs. Others may pass through it, and read nothing.
export HOME=$WORK XDG_STATE_HOME=$WORK/state TMPDIR=$WORK LC_ALL=C.UTF-8
cd "$WORK"

# How long a program is at it, and how long a carrier lives.
if ((QUICK)); then seconds=8 every=1; else seconds=60 every=2; fi
# There and back 10 ms, as between two towns: nothing is so fast that a cut could miss it.
delay=5ms

started=()
declare -A stop_by=()

# start NAME COMMAND...: runs it beside us. What it says goes to NAME.log; its process is $pid.
start() {
    local name=$1
    shift
    "$@" >"$WORK/$name.log" 2>&1 </dev/null &
    pid=$!
    started+=("$pid")
}

# as USER COMMAND...: by that user, if we are root. Takes the place of the shell, so that `start` knows the right process.
as() {
    if ((EUID == 0)); then exec setpriv --reuid="$1" --regid="$1" --init-groups --inh-caps=-all "${@:2}"; fi
    exec "${@:2}"
}

fail() {
    echo "$*" >&2
    exit 1
}

# said NAME PATTERN [SECONDS]: waits until NAME.log has it, and prints the first that fits.
said() {
    local name=$1 pattern=$2 until=$((SECONDS + ${3:-15}))
    until grep -m1 -oE -- "$pattern" "$WORK/$name.log" 2>/dev/null; do
        ((SECONDS < until)) || fail "$name did not say \"$pattern\""
        sleep 0.05
    done
}

# eventually SECONDS COMMAND...: until it succeeds.
eventually() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < until)) || return 1
        sleep 0.05
    done
}

# For those who want to be told one: any that nobody has now.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); }

# family PID: it, and all that it started.
family() {
    local child children
    echo "$1"
    children=$(cat "/proc/$1/task/"*/children 2>/dev/null) || true
    for child in $children; do family "$child"; done
}

gone() { ! kill -0 "$1" 2>/dev/null; }

# stop PID [SIGNAL]: asks it to end, and ends it and what it started if it has not within five seconds.
stop() {
    local all
    all=$(family "$1")
    kill "-${2:-TERM}" "$1" 2>/dev/null || true
    if ! eventually 5 gone "$1"; then
        # shellcheck disable=SC2086
        kill -KILL $all 2>/dev/null || true
    fi
    wait "$1" 2>/dev/null || true
}

cleanup() {
    local n all
    # What the shell says about those who have to be killed is of no use to anybody.
    exec 2>/dev/null
    echo "$SECONDS" >"$WORK/took"
    all=$(family $$)
    for ((n = ${#started[@]} - 1; n >= 0; n--)); do
        stop "${started[n]}" "${stop_by[${started[n]}]:-TERM}"
    done
    # And who was at work when somebody else failed.
    for n in $all; do
        if ((n != $$)); then kill -KILL "$n" || true; fi
    done
}
trap cleanup EXIT
trap 'exit 143' TERM INT

# server TARGET [OPTION...]: a server that brings streams there. Sets $link and $upstream.
server() {
    start server "$TURBOTUNNEL" server 127.0.0.1:0 --key server.key --drain 1s --to "$@"
    link=$(said server "turbotunnel://[A-Za-z0-9_-]+@127\.0\.0\.1:[0-9]+")
    upstream=${link##*@}
}

# a_way_to TARGET BYTES [OPTION...]: a server, and on the way to it somebody who lets so many bytes a second pass and cuts.
# As a control the cutter is all there is. Sets $link for clients and $at, the cutter's address.
a_way_to() {
    local target=$1 rate=$2 how=fin,rst,stall,half
    if ((CONTROL)); then
        upstream=$target how=fin,rst
    else
        server "$target" --allow "$target" "${@:3}"
    fi
    start cutter "$TURBOTUNNEL" lilbastard -w "$every" --how "$how" --delay "$delay" --rate "$rate" "$upstream" 127.0.0.1:0
    at=$(said cutter 'listening on 127\.0\.0\.1:[0-9]+')
    at=${at##* }
    if ! ((CONTROL)); then link=${link%@*}@$at; fi
}

# client OPTION...: a client, and $here, the address it takes connections at.
client() {
    if ((CONTROL)); then
        here=$at
        return
    fi
    start client "$TURBOTUNNEL" client "$link" --drain 1s "$@"
    here=$(said client '(forwarding|SOCKS 5 on) 127\.0\.0\.1:[0-9]+')
    here=${here##* }
    # Until its session stands, a program would wait for no reason of its own.
    said client ' up over ' >/dev/null
}

cuts() { grep -c ' cut #' "$WORK/cutter.log" || true; }

# Two programs at once: what they have noticed, and that neither has. As a control both have to.
noticed=()
neither() {
    local all
    ((${#noticed[@]})) || return 0
    all=$(printf '; %s' "${noticed[@]}")
    if ((CONTROL && ${#noticed[@]} < 2)); then
        printf -- '-\tby one of the two; %s\n' "${all#; }"
        exit 0
    fi
    fail "${all#; }"
}

# silent FILE...: a program that says something on its stderr has noticed something.
silent() {
    local file
    for file; do
        [[ ! -s $file ]] || fail "$(basename "$file" .err) noticed: $(head -3 "$file")"
    done
}

# same WHAT EXPECTED GOT
same() { [[ $2 == "$3" ]] || fail "$1: expected $2, got $3"; }

same_files() {
    local one other
    one=$(sha256sum <"$1")
    other=$(sha256sum <"$2")
    same "sha256 of $2" "$one" "$other"
}

# passed TEXT: all is well, if there was something to survive and it was one session all the time.
passed() {
    local how log
    (($(cuts) >= seconds / (3 * every))) || fail "only $(cuts) cuts: this has shown nothing"
    if ! ((CONTROL)); then
        for how in fin rst stall half; do
            grep -q "($how)$" cutter.log || fail "no cut by $how: this has shown nothing"
        done
        for log in server client*; do
            log=$WORK/${log%.log}.log
            [[ -e $log ]] || continue
            ! grep -nE 'error:|panicked|streams? cut|starting a new one' "$log" >&2 || fail "$(basename "$log") has the above"
        done
    fi
    printf '%s\t%s\n' "$(cuts)" "$1"
}
