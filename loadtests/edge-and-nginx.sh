#!/usr/bin/env bash
# Measures the edge and nginx as the TLS front of one upstream, in turns, and prints CPU per request, rates and latency.
#
#   loadtests/edge-and-nginx.sh [--rounds N] [--seconds N] [--idle N] [--upstream unix|tcp] [--edge PROGRAM]
#
# --rounds   how often each front has its turn with each load (6)
# --seconds  how long a turn takes (4)
# --idle     how many idle TLS connections of HTTP/1.1 are opened to weigh one, and then half as many of HTTP/2 (5000; 0
#            leaves that out); each is a descriptor, of which there must be as many and some more (ulimit -Hn)
# --upstream by what all fronts reach the upstream (tcp): guides for Matrix servers have nginx connect to a port of
#            localhost; the edge and its own shards meet at Unix sockets
# --edge     the edge to measure, such as the one that `make release` builds; without it one is built by cargo alone
#
# The upstream is an nginx that answers a few bytes. nginx as a front stands twice: with connections kept to the upstream,
# and as guides for Matrix servers write it, with a new one for each request. All have two workers and one ECDSA P-256
# certificate. Programs (Debian: nginx-light, wrk, nghttp2-client, openssl, python3) must be installed. The result stays in
# target/edge-and-nginx/result.json.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
out=$target/edge-and-nginx
# shellcheck source=loadtests/common.sh
. "$root/loadtests/common.sh"
rounds=6 seconds=4 idle=5000 upstream=tcp program=
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=$2 ;;
    --seconds) seconds=$2 ;;
    --idle) idle=$2 ;;
    --upstream) upstream=$2 ;;
    --edge) program=$(realpath "$2") ;;
    *)
        sed -n '2,19s/^# \?//p' "$0"
        exit 2
        ;;
    esac
    shift 2
done
case $upstream in
unix | tcp) ;;
*)
    echo "--upstream is unix or tcp" >&2
    exit 2
    ;;
esac

if [ -z "$program" ]; then
    echo "building for release" >&2
    (cd "$root" && cargo build --release --quiet -p gatehouse)
    program=$target/release/gatehouse
fi
mkdir -p "$out"
work=$(mktemp -d "${TMPDIR:-/tmp}/gatehouse-edge-and-nginx-XXXXXX")
chmod 755 "$work" # the workers of nginx are somebody else
pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout "$work/key.pem" -out "$work/chain.pem" 2>/dev/null
printf '%064d' 0 >"$work/secret"
head -c 12288 /dev/urandom | base64 -w0 >"$work/large"

edge_port=$(free_port) kept_port=$(free_port) guide_port=$(free_port) upstream_port=$(free_port)
case $upstream in
unix) for_nginx=unix:$work/upstream.sock for_edge=unix:$work/upstream.sock ;;
tcp) for_nginx=127.0.0.1:$upstream_port for_edge=127.0.0.1:$upstream_port ;;
esac

# start_nginx NAME, with the http section on standard input
start_nginx() {
    {
        echo "worker_processes 2; pid $work/$1.pid; error_log $work/$1.err; daemon off; worker_rlimit_nofile 60000;"
        echo 'events { worker_connections 30000; }'
        echo "http { access_log off; keepalive_timeout 1h; keepalive_requests 1000000000; client_body_temp_path $work/$1.body;"
        echo "proxy_temp_path $work/$1.proxy; fastcgi_temp_path $work/$1.f; uwsgi_temp_path $work/$1.u; scgi_temp_path $work/$1.s;"
        cat
        echo '}'
    } >"$work/$1.conf"
    nginx -p "$work" -c "$work/$1.conf" >>"$work/$1.err" 2>&1 &
    pids+=($!)
}

start_nginx upstream <<NGINX
    server {
        listen unix:$work/upstream.sock backlog=4096;
        listen 127.0.0.1:$upstream_port backlog=4096;
        default_type application/json;
        location / { return 200 '{"user_id":"@alice:example.org","device_id":"ABCDEFGHIJ","is_guest":false}'; }
        location /_matrix/client/v3/sync { alias $work/large; }
    }
NGINX
front() {
    cat <<NGINX
    upstream shard { server $for_nginx; $2 }
    server {
        listen 127.0.0.1:$1 ssl http2 backlog=4096;
        ssl_certificate $work/chain.pem;
        ssl_certificate_key $work/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:s:10m;
        client_max_body_size 50M;
        location / {
            proxy_pass http://shard;
            $3
            proxy_set_header Host \$host;
            proxy_set_header X-Forwarded-For \$remote_addr;
            proxy_set_header X-Forwarded-Proto \$scheme;
        }
    }
NGINX
}
start_nginx kept < <(front "$kept_port" 'keepalive 512; keepalive_requests 1000000000;' \
    'proxy_http_version 1.1; proxy_set_header Connection "";')
start_nginx guide < <(front "$guide_port" '' '')

cat >"$work/edge.toml" <<TOML
[server]
name = "localhost"
[listen]
https = ["127.0.0.1:$edge_port"]
[[tls.certificates]]
chain = "$work/chain.pem"
key = "$work/key.pem"
[upstream]
cluster_secret = { file = "$work/secret" }
shards = ["$for_edge"]
TOML
RUNTIME_DIRECTORY=$work "$program" run --config "$work/edge.toml" >"$out/edge.log" 2>&1 &
edge=$!
pids+=($edge)
for one in $edge_port $kept_port $guide_port; do
    curl --silent --show-error --insecure --retry 50 --retry-delay 1 --retry-all-errors \
        "https://localhost:$one/_matrix/client/v3/account/whoami" >>"$out/curl.log" 2>&1
done

python3 "$root/loadtests/edge_and_nginx.py" --rounds "$rounds" --seconds "$seconds" --idle "$idle" \
    --json "$out/result.json" "edge=$edge_port:$edge" "nginx=$kept_port:$(cat "$work/kept.pid")" \
    "nginx-guide=$guide_port:$(cat "$work/guide.pid")"
