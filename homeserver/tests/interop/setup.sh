#!/usr/bin/env bash
# Installs what the tests need beside Rust: Debian packages (a database, a name server and more), Synapse and matrix-nio
# from PyPI, matrix-js-sdk with a Node.js of its own from npm. What is there already is left as it is, so a second run
# ends at once.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
cache=${CARGO_TARGET_DIR:-$root/target}/interop
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9

say() { printf 'interop setup: %s\n' "$*"; }

debian_packages() {
    local missing=()
    command -v python3 >/dev/null || missing+=(python3)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    command -v npm >/dev/null || missing+=(npm)
    command -v chromium >/dev/null || missing+=(chromium)
    command -v zstd >/dev/null || missing+=(zstd)
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || missing+=(postgresql)
    # The edge's tests: name servers, an ACME authority with its challenge test server, network namespaces.
    command -v named >/dev/null || [ -x /usr/sbin/named ] || missing+=(bind9)
    command -v dig >/dev/null || missing+=(bind9-dnsutils)
    command -v pebble >/dev/null || missing+=(pebble)
    command -v ip >/dev/null || [ -x /usr/sbin/ip ] || missing+=(iproute2)
    command -v nft >/dev/null || [ -x /usr/sbin/nft ] || missing+=(nftables)
    command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx)
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "these Debian packages are missing, and only root can install them: ${missing[*]}" >&2
        exit 1
    fi
    say "installing ${missing[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
}

# Does nothing when the folder was made from just these files.
up_to_date() {
    local folder=$1
    shift
    [ -f "$folder/made-from" ] && cat "$@" | cmp -s - "$folder/made-from"
}

python_packages() {
    local folder=$cache/$1 requirements=$here/requirements-$1.txt
    if up_to_date "$folder" "$requirements"; then return; fi
    say "installing $(head -1 "$requirements")"
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
    cat "$requirements" >"$folder/made-from"
}

javascript_packages() {
    local folder=$cache/js
    if up_to_date "$folder" "$here/js/package.json" "$here/js/package-lock.json"; then return; fi
    say "installing matrix-js-sdk"
    rm -rf "$folder"
    mkdir "$folder"
    cp "$here/js/package.json" "$here/js/package-lock.json" "$folder"
    # The packages bring a Node.js that is new enough; npm may run on an older one.
    (cd "$folder" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error)
    cat "$here/js/package.json" "$here/js/package-lock.json" >"$folder/made-from"
}

debian_packages
python_packages synapse
python_packages nio
javascript_packages
say "all is there"
