# Redis over -L: redis-benchmark from twenty connections, and then what it has left in the database.
# shellcheck shell=bash source=common.sh
. "$(dirname "$0")/common.sh"

# What twenty connections do over that path in a third of the time, about.
requests=$((seconds * 500))
port=$(free_port)
start redis /usr/bin/redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$WORK"
said redis 'Ready to accept connections' >/dev/null

a_way_to "127.0.0.1:$port" 4MB
client -L 0
cli=(timeout --foreground 60 redis-cli -h 127.0.0.1 -p "${here##*:}")
bench() {
    timeout --foreground $((seconds * 3)) redis-benchmark -h 127.0.0.1 -p "${here##*:}" -c 20 -n "$requests" --csv "$@" >>bench.log 2>>redis-benchmark.err ||
        fail "redis-benchmark $* ended with $?: $(cat redis-benchmark.err bench.log | tr "\r" "\n" | grep -i error | tail -n 1)"
}
bench INCR counter
bench -d 1000 -t rpush
bench -r 100 SET key:__rand_int__ value

head -c 1000000 /dev/urandom | base64 -w 0 >value
silent redis-benchmark.err
same "SET of a megabyte" OK "$("${cli[@]}" -x SET large <value 2>redis-cli.err)"
"${cli[@]}" --raw GET large 2>>redis-cli.err | head -c -1 >back
silent redis-cli.err
same_files value back
# Each of the requests was carried out once. Those for a hundred keys have missed none of them.
same "GET counter" "$requests" "$("${cli[@]}" GET counter)"
same "LLEN mylist" "$requests" "$("${cli[@]}" LLEN mylist)"
same "DBSIZE" 103 "$("${cli[@]}" DBSIZE)"
same "GET of a key" value "$("${cli[@]}" GET key:000000000042)"
passed "3 times $requests requests by 20 connections, each counted once; 1.3 MB there and back equal"
