# OpenSSH: somebody at a terminal, with a counter running beside what he types, over -W; and an scp over -L.
# shellcheck shell=bash source=common.sh
. "$(dirname "$0")/common.sh"

if ((QUICK)); then size=20 rate=4MB; else size=200 rate=5MB; fi
user=$(id -un)
port=$(free_port)
ssh-keygen -q -t ed25519 -N '' -f host_key
ssh-keygen -q -t ed25519 -N '' -f user_key
# In passwd's words: an account that nobody gets into by a password, which sshd takes for locked unless PAM says otherwise.
pam=no
if ((EUID == 0)) && getent shadow "$user" | cut -d: -f2 | grep -q '^!'; then pam=yes; fi
cat >sshd_config <<END
ListenAddress 127.0.0.1:$port
HostKey $WORK/host_key
AuthorizedKeysFile $WORK/user_key.pub
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM $pam
# The folder of all temporary files is writable by everybody, which it does not like.
StrictModes no
PrintMotd no
PrintLastLog no
Subsystem sftp internal-sftp
END
# Where it locks up its unprivileged half; Debian's service makes it, and there may be none.
made=
if ((EUID == 0)) && [[ ! -d /run/sshd ]]; then
    mkdir -m 0755 /run/sshd
    made=yes
fi
# The client that ssh has started is ours to end if ssh could not.
cleanup_ssh() {
    local proxy
    cleanup
    if proxy=$(cat proxy.pid) && grep -qF -- "${link:-no client}" "/proc/$proxy/cmdline"; then kill -KILL "$proxy"; fi
    if [[ $made ]]; then rmdir /run/sshd || true; fi
}
trap cleanup_ssh EXIT
start sshd /usr/sbin/sshd -D -e -f sshd_config
eventually 15 answers "$port" || fail "sshd does not answer"

a_way_to "127.0.0.1:$port" "$rate"
client -L 0
cat >ssh_config <<END
Host *
    User $user
    IdentityFile $WORK/user_key
    IdentitiesOnly yes
    UserKnownHostsFile $WORK/known_hosts
    HostKeyAlias here
    BatchMode yes
    LogLevel ERROR
    # With what it sends when there is nothing to send: three without an answer, and it gives up.
    ServerAliveInterval 5
    ServerAliveCountMax 3
END
echo "here $(cut -d' ' -f1-2 host_key.pub)" >known_hosts
if ((CONTROL)); then
    to=(-p "${at##*:}" 127.0.0.1)
else
    cat >proxy <<END
echo \$\$ >'$WORK/proxy.pid'
exec '$TURBOTUNNEL' client '$link' -W "\$1" 2>'$WORK/client-W.log'
END
    to=(-o "ProxyCommand=bash $WORK/proxy %h:%p" -p "$port" 127.0.0.1)
fi

# Somebody types twice a second; at the other end a counter goes on ten times a second.
typed=$((seconds * 2))
counted=$((seconds * 10))
type_in() {
    eventually 15 grep -q ready terminal || return
    echo "set +m; n=0; while [ \$n -lt $counted ]; do n=\$((n + 1)); echo counted \$n; sleep 0.1; done &"
    echo "while read -r line && [ \"\$line\" != end ]; do echo heard \$line; done"
    for ((n = 1; n <= typed; n++)); do
        sleep 0.5
        echo "line $n of $typed"
    done
    printf 'end\nwait\nexit 7\n'
}
# Terminals end lines with two bytes; and the time, to see how long nothing came.
stamp() { while IFS= read -r line; do printf '%s %s\n' "$EPOCHREALTIME" "${line%$'\r'}"; done; }
at_the_terminal() {
    local status=0
    type_in | timeout --foreground $((seconds * 2 + 20)) ssh -tt -F ssh_config "${to[@]}" 'stty -echo; echo ready; PS1= exec sh' 2>ssh.err | stamp >terminal ||
        status=${PIPESTATUS[1]}
    echo "$status" >terminal.status
}

head -c "${size}M" /dev/urandom >file
at_the_terminal &
terminal=$!
timeout --foreground $((seconds * 3)) scp -q -F ssh_config -P "${here##*:}" file 127.0.0.1:"$WORK/copy" 2>scp.err ||
    noticed+=("scp ended with $?: $(head -1 scp.err)")
wait "$terminal"

status=$(cat terminal.status)
((status == 7)) || noticed+=("ssh ended with $status instead of 7: $(head -1 ssh.err)")
neither
eventually 5 gone "$(cat proxy.pid)" || fail "client -W is still there without its ssh"
silent ssh.err scp.err
same_files file copy
cut -d' ' -f2- terminal >lines
grep '^counted' lines | cmp - <(seq -f 'counted %.0f' "$counted") >&2 || fail "the counter: not every line came once and in its place"
grep '^heard' lines | cmp - <(seq -f "heard line %.0f of $typed" "$typed") >&2 || fail "what was typed did not all come back"
# No prompt, no echo: nothing else is to be seen.
others=$(grep -vE '^(ready$|counted |heard )' lines || true)
same "other lines at the terminal" "" "$others"
silence=$(awk 'NR > 1 && $1 - last > most { most = $1 - last } { last = $1 } END { printf "%.1f", most }' terminal)
passed "$counted lines counted, $typed echoed, longest silence $silence s; scp of $size MiB: sha256 equal"
