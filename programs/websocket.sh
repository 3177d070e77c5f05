# A WebSocket over -L: numbered messages, all of which have to come back in order.
# shellcheck shell=bash source=common.sh
. "$(dirname "$0")/common.sh"

# Debian's, whatever else is called python3 here: its package is for that one.
python=/usr/bin/python3
start echo "$python" "$(dirname "$0")/websocket.py" echo
port=$(said echo 'listening on [0-9]+')
a_way_to "127.0.0.1:${port##* }" 4MB
client -L 0
timeout --foreground $((seconds * 3)) "$python" "$(dirname "$0")/websocket.py" talk "${here##*:}" "$seconds" >talk.log 2>talk.err ||
    fail "the WebSocket's client ended with $?: $(tail -1 talk.err)"
silent talk.err
passed "$(cat talk.log)"
