# curl gets a file from nginx over -D (SOCKS 5); the name is resolved at the server.
# shellcheck shell=bash source=common.sh
. "$(dirname "$0")/common.sh"

if ((QUICK)); then size=40 rate=8MB; else size=500 rate=11MB; fi
port=$(free_port)
mkdir -m 0755 nginx nginx/files
cat >nginx/nginx.conf <<END
daemon off;
pid $WORK/nginx/pid;
error_log stderr warn;
worker_processes 1;
events { }
http {
    access_log off;
    client_body_temp_path $WORK/nginx/a;
    proxy_temp_path $WORK/nginx/b;
    fastcgi_temp_path $WORK/nginx/c;
    uwsgi_temp_path $WORK/nginx/d;
    scgi_temp_path $WORK/nginx/e;
    server {
        listen 127.0.0.1:$port;
        root $WORK/nginx/files;
    }
}
END
head -c "${size}M" /dev/urandom >nginx/files/file
if ((EUID == 0)); then chown -R www-data: nginx; fi
start nginx as www-data /usr/sbin/nginx -p "$WORK/nginx" -c "$WORK/nginx/nginx.conf" -e stderr
eventually 15 answers "$port" || fail "nginx does not answer"

a_way_to "127.0.0.1:$port" "$rate" --allow "localhost:$port"
client -D 0
if ((CONTROL)); then
    from=("http://$at/file")
else
    from=(--proxy "socks5h://$here" "http://localhost:$port/file")
fi
timeout --foreground $((seconds * 3)) curl -q -sS --fail --noproxy '' -o copy "${from[@]}" 2>curl.err || fail "curl ended with $?: $(head -1 curl.err)"

silent curl.err
same_files nginx/files/file copy
passed "$size MiB by SOCKS 5: sha256 equal"
