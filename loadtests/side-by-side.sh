#!/usr/bin/env bash
# Measures a tuned Synapse and Gatehouse, each on a PostgreSQL of its own, one after the other, and compares them.
#
#   loadtests/side-by-side.sh [--quick] [--only synapse|gatehouse] [SCENARIO ...]
#
# --quick  shorter parts and smaller rooms, to see whether everything works
# --only   measures one side and keeps the other side's report of the last run
#
# Reports and logs stay in target/side-by-side. PostgreSQL's programs must be installed (Debian: postgresql), and
# Python 3 with venv (Debian: python3-venv) for Synapse, which comes from PyPI.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
out=${CARGO_TARGET_DIR:-$root/target}/side-by-side
# shellcheck source=loadtests/common.sh
. "$root/loadtests/common.sh"
synapse_version=1.163.2
secret=a-secret-of-one-run
seconds=15
sizes=()
sides=(synapse gatehouse)
scenarios=()

while [ $# -gt 0 ]; do
    case $1 in
    --quick)
        seconds=5
        sizes=(--members 100 --rooms 20 --stored 1000 --depth 5000)
        ;;
    --only)
        sides=("$2")
        shift
        ;;
    -*)
        sed -n '2,10s/^# \?//p' "$0"
        exit 2
        ;;
    *) scenarios+=("$1") ;;
    esac
    shift
done
# Password hashes come last: Synapse is restarted for them.
[ ${#scenarios[@]} -gt 0 ] || scenarios=(idle versions create-room send fan-out idle-sync initial-sync messages join media
    storage send-at-depth login register)

mkdir -p "$out"
work=$(mktemp -d "${TMPDIR:-/tmp}/gatehouse-side-by-side-XXXXXX")
chmod 755 "$work"
pids=()

stop_all() {
    for pid in "${pids[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    pids=()
}
trap 'stop_all; rm -rf "$work"' EXIT

# Waits until a URL answers; curl tries again by itself.
await() {
    curl --silent --show-error --fail --output /dev/null --retry 240 --retry-delay 1 --retry-max-time 240 \
        --retry-all-errors "$@" 2>"$work/curl.log" || {
        cat "$work/curl.log" >&2
        return 1
    }
}

# PostgreSQL refuses to run as root.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"
    else
        "$@"
    fi
}

# Starts a server for one side. Sets postgres_pid and postgres_port, and database_url of an empty database.
start_postgres() {
    local programs data=$work/postgres-$1
    programs=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
    [ -n "$programs" ] || programs=$(dirname "$(command -v initdb)")
    postgres_port=$(free_port)
    mkdir "$data"
    [ "$(id -u)" != 0 ] || chown postgres "$data"
    (
        cd "$data"
        as_postgres "$programs/initdb" --auth=trust --encoding=UTF8 --locale=C --username=gatehouse "$data/data" >/dev/null
    )
    cd "$data"
    as_postgres "$programs/postgres" -D "$data/data" -p "$postgres_port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= -c shared_buffers=512MB -c max_connections=200 -c max_wal_size=4GB \
        2>"$out/postgres-$1.log" &
    postgres_pid=$!
    cd "$root"
    pids+=("$postgres_pid")
    until "$programs/pg_isready" -q -h 127.0.0.1 -p "$postgres_port"; do
        kill -0 "$postgres_pid" || { cat "$out/postgres-$1.log" >&2; exit 1; }
        sleep 0.1
    done
    "$programs/createdb" -h 127.0.0.1 -p "$postgres_port" -U gatehouse --template=template0 "$1"
    database_url=postgres://gatehouse@127.0.0.1:$postgres_port/$1
    size_command="$programs/psql -AtX -d $database_url -c 'SELECT pg_database_size(current_database())'"
}

install_synapse() {
    [ -x "$out/venv/bin/synapse_homeserver" ] && return
    say "installing Synapse $synapse_version"
    python3 -m venv "$out/venv"
    "$out/venv/bin/pip" install --quiet "matrix-synapse==$synapse_version" psycopg2-binary
}

# Starts Synapse with the given bcrypt_rounds. Sets synapse_pid.
start_synapse() {
    local folder=$work/synapse
    mkdir -p "$folder"
    cat >"$folder/log.yaml" <<YAML
version: 1
handlers: {file: {class: logging.FileHandler, filename: $out/synapse.log}}
root: {level: WARNING, handlers: [file]}
YAML
    cat >"$folder/homeserver.yaml" <<YAML
server_name: localhost
report_stats: false
pid_file: $folder/pid
signing_key_path: $folder/signing.key
media_store_path: $folder/media
log_config: $folder/log.yaml
listeners:
  - {port: $synapse_port, bind_addresses: [127.0.0.1], type: http, resources: [{names: [client, media]}]}
database:
  name: psycopg2
  args: {user: gatehouse, host: 127.0.0.1, port: $postgres_port, dbname: synapse, cp_min: 5, cp_max: 20}
registration_shared_secret: $secret
bcrypt_rounds: $1
trusted_key_servers: []
suppress_key_server_warning: true
presence: {enabled: false}
max_upload_size: 50M
caches: {global_factor: 4.0}
event_cache_size: 50K
$(for limit in rc_message rc_registration rc_admin_redaction rc_room_creation rc_media_create; do
        echo "$limit: {per_second: 100000, burst_count: 100000}"
    done)
rc_login: {address: &lots {per_second: 100000, burst_count: 100000}, account: *lots, failed_attempts: *lots}
rc_joins: {local: *lots, remote: *lots}
rc_joins_per_room: *lots
rc_invites: {per_room: *lots, per_user: *lots, per_issuer: *lots}
YAML
    (cd "$folder" && "$out/venv/bin/synapse_homeserver" --config-path homeserver.yaml --generate-keys)
    (cd "$folder" && exec "$out/venv/bin/synapse_homeserver" --config-path homeserver.yaml >>"$out/synapse.out" 2>&1) &
    synapse_pid=$!
    pids+=("$synapse_pid")
    await "http://127.0.0.1:$synapse_port/_matrix/client/versions"
}

stop_one() {
    kill -TERM "$1"
    wait "$1" 2>/dev/null || true
}

load() {
    "$loadtests" run --shared-secret "$secret" --size-command "$size_command" --seconds "$seconds" "${sizes[@]}" "$@"
}

measure_synapse() {
    local slow=() rest=() scenario
    install_synapse
    rm -f "$out/synapse.json"
    start_postgres synapse
    synapse_port=$(free_port)
    for scenario in "${scenarios[@]}"; do
        case $scenario in
        login | register) slow+=("$scenario") ;;
        # At Synapse's rate the depth would take hours; the bar compares Gatehouse with itself.
        send-at-depth) ;;
        *) rest+=("$scenario") ;;
        esac
    done
    # Registering a thousand members takes minutes with real hashes, and nothing but these two scenarios measures them.
    if [ ${#rest[@]} -gt 0 ]; then
        start_synapse 4
        say "Synapse: ${rest[*]}"
        load --base "http://127.0.0.1:$synapse_port" --label "Synapse $synapse_version" --json "$out/synapse.json" \
            --pid "server=$synapse_pid" --pid "db=$postgres_pid" "${rest[@]}"
        stop_one "$synapse_pid"
    fi
    if [ ${#slow[@]} -gt 0 ]; then
        start_synapse 12
        say "Synapse: ${slow[*]}"
        load --base "http://127.0.0.1:$synapse_port" --label "Synapse $synapse_version" --json "$out/synapse.json" \
            --pid "server=$synapse_pid" --pid "db=$postgres_pid" "${slow[@]}"
    fi
    stop_all
}

# Starts the edge with one shard. Sets edge_pid, shard_pid, gatehouse_url and gatehouse_ca.
start_gatehouse() {
    local folder=$work/gatehouse https federation
    https=$(free_port)
    federation=$(free_port)
    gatehouse_url=https://localhost:$https
    gatehouse_ca=$folder/ca/ca.pem
    write_gatehouse "$folder" "$https" "$federation" "$secret" "$database_url"
    "$programs/gatehouse" run --config "$folder/edge.toml" >"$out/gatehouse.log" 2>&1 &
    edge_pid=$!
    pids+=("$edge_pid")
    # The edge makes its certificate before it listens.
    await --cacert "$gatehouse_ca" "$gatehouse_url/_matrix/client/versions"
    shard_pid=$(pgrep --parent "$edge_pid" --full shard-1.sock)
}

measure_gatehouse() {
    rm -f "$out/gatehouse.json"
    start_postgres gatehouse
    start_gatehouse
    say "Gatehouse: ${scenarios[*]}"
    load --base "$gatehouse_url" --ca "$gatehouse_ca" --label Gatehouse --json "$out/gatehouse.json" \
        --pid "shard=$shard_pid" --pid "edge=$edge_pid" --pid "db=$postgres_pid" "${scenarios[@]}"
    stop_all
}

say "building for release"
cd "$root"
cargo build --release --quiet --workspace --bins
programs=${CARGO_TARGET_DIR:-$root/target}/release
loadtests=$programs/gatehouse-loadtests
for side in "${sides[@]}"; do
    "measure_$side"
done
if [ -f "$out/synapse.json" ] && [ -f "$out/gatehouse.json" ]; then
    say "Synapse and Gatehouse"
    "$loadtests" compare "$out/synapse.json" "$out/gatehouse.json" | tee "$out/comparison.txt"
fi
