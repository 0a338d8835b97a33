# What several scripts need; read by them and not run.

say() { printf '\n== %s\n' "$*" >&2; }

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Writes what an edge with one shard needs: write_gatehouse FOLDER HTTPS_PORT FEDERATION_PORT REGISTRATION_SECRET [DATABASE_URL].
# Without the last one the shard has an SQLite file. The development CA will be in ca/ca.pem.
write_gatehouse() {
    local folder=$1 https=$2 federation=$3 secret=$4 url=${5:-}
    mkdir -p "$folder"
    printf '%064d' 0 >"$folder/cluster-secret"
    cat >"$folder/edge.toml" <<TOML
[server]
name = "localhost:$federation"
base_url = "https://localhost:$https"
[listen]
https = ["127.0.0.1:$https"]
federation = ["127.0.0.1:$federation"]
[tls.development_ca]
folder = "$folder/ca"
[upstream]
cluster_secret = { file = "$folder/cluster-secret" }
[supervise]
shards = 1
config = "$folder/homeserver.toml"
socket_folder = "$folder/sockets"
TOML
    cat >"$folder/homeserver.toml" <<TOML
server_name = "localhost:$federation"
data_folder = "$folder/data"
cluster_secret = { file = "$folder/cluster-secret" }
[registration]
shared_secret = "$secret"
TOML
    [ -z "$url" ] || printf '[database]\npostgres = "%s"\n' "$url" >>"$folder/homeserver.toml"
}
