# PostgreSQL over -L: one long transaction in psql that has to see one state all the time, while pgbench changes it.
# shellcheck shell=bash source=common.sh
. "$(dirname "$0")/common.sh"

# Where Debian has them: the newest.
bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -1)
port=$(free_port)
PGPASSWORD=$(head -c 15 /dev/urandom | base64)
export PGPASSWORD PGUSER=bench PGDATABASE=postgres PGCONNECT_TIMEOUT=30
# It refuses to be run by root.
mkdir -m 0700 db
echo "$PGPASSWORD" >db/password
if ((EUID == 0)); then chown -R postgres: db; fi
(as postgres "$bin/initdb" -D db/data -U bench --auth=scram-sha-256 --pwfile=db/password --no-sync) >initdb.log 2>&1 ||
    fail "initdb failed"
start postgres as postgres "$bin/postgres" -D db/data -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off
# "Fast": TERM would wait for clients.
stop_by[$pid]=INT
said postgres 'ready to accept connections' >/dev/null
direct=("host=127.0.0.1 port=$port")
timeout --foreground 60 "$bin/pgbench" -i -q -s 1 "${direct[@]}" >init.log 2>&1 || fail "pgbench -i failed"

a_way_to "127.0.0.1:$port" 4MB
client -L 0
over="host=127.0.0.1 port=${here##*:}"

# A second at a time: the process that serves us, the transaction's number, and three sums that agree in every state.
one_state() {
    cat <<'END'
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
BEGIN ISOLATION LEVEL REPEATABLE READ;
CREATE TEMPORARY TABLE seen (n int);
END
    for ((n = 1; n < seconds; n++)); do
        cat <<END
INSERT INTO seen SELECT $n FROM pg_sleep(1);
SELECT pg_backend_pid(), txid_current(), (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
    (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT count(*) = $n AND sum(n) = $n * ($n + 1) / 2 FROM seen);
END
    done
    # And much at once, both ways.
    cat <<END
\copy (SELECT n, md5(n::text) FROM generate_series(1, 50000) AS n) TO '$WORK/rows'
CREATE TEMPORARY TABLE back (n int, hash text);
\copy back FROM '$WORK/rows'
SELECT count(*), sum(n), bool_and(hash = md5(n::text)) FROM back;
COMMIT;
END
}
one_state >script.sql
(
    # Its snapshot is to be taken while others write.
    sleep 1
    status=0
    timeout --foreground $((seconds * 2 + 20)) psql -X -q -f script.sql "$over" >psql.out 2>psql.err || status=$?
    echo "$status" >psql.status
) &
psql=$!
timeout --foreground $((seconds * 2 + 20)) "$bin/pgbench" -n -c 4 -j 2 -T "$seconds" -R 100 --max-tries=1 "$over" >pgbench.log 2>pgbench.err ||
    noticed+=("pgbench ended with $?: $(grep -m1 -i error pgbench.err | cut -c1-60)")
wait "$psql"

status=$(cat psql.status)
((status == 0)) || noticed+=("psql ended with $status: $(head -1 psql.err | cut -c1-60)")
neither
silent psql.err
# What it always says, before it begins.
grep -v '^pgbench (' pgbench.err >pgbench-said.err || true
silent pgbench-said.err
grep -q '^number of failed transactions: 0 ' pgbench.log || fail "pgbench: failed transactions"
transactions=$(sed -n 's/^number of transactions actually processed: //p' pgbench.log)
((transactions >= seconds * 5)) || fail "pgbench: only $transactions transactions"
# What pgbench counts as done is in the history, once each, and all the sums agree.
asked=$(timeout --foreground 20 psql -X -q -A -t "${direct[@]}" -c "SELECT count(*), sum(delta) = (SELECT sum(abalance) FROM pgbench_accounts),
    sum(delta) = (SELECT sum(tbalance) FROM pgbench_tellers), sum(delta) = (SELECT sum(bbalance) FROM pgbench_branches) FROM pgbench_history")
same "the bank's books" "$transactions|t|t|t" "$asked"
head -n -1 psql.out >states
same "states seen" $((seconds - 1)) "$(wc -l <states)"
same "different states seen" 1 "$(sort -u states | wc -l)"
IFS='|' read -r _ _ accounts branches tellers rows <states
same "the sums" "$accounts $accounts t" "$branches $tellers $rows"
same "rows that went there and back" "50000|1250025000|t" "$(tail -1 psql.out)"
passed "pgbench: $transactions transactions, none failed, books right; psql: $((seconds - 1)) looks in one transaction, one state"
