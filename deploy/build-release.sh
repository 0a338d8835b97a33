#!/usr/bin/env bash
# Builds both programs for installation, and leaves them in target/installation.
#
#   deploy/build-release.sh
#
# The edge is built twice: a first build counts what runs while it stands in front of a shard under load, and the second one
# is optimised by that. `cargo build --release` makes the same programs, with an edge that takes a little more CPU.
#
# Needs llvm-profdata of the LLVM that rustc is built with (`rustup component add llvm-tools`, or Debian's package llvm-N for
# its version N), python3 and curl.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
# shellcheck source=loadtests/common.sh
. "$root/loadtests/common.sh"
host=$(rustc -vV | sed -n 's/^host: //p')
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')

find_profdata() {
    local one
    for one in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" "llvm-profdata-$llvm" \
        "/usr/lib/llvm-$llvm/bin/llvm-profdata"; do
        if command -v "$one" >/dev/null; then
            echo "$one"
            return
        fi
    done
    echo "there is no llvm-profdata of LLVM $llvm, which rustc is built with: install it with" \
        "\`rustup component add llvm-tools\` or \`apt-get install llvm-$llvm\`, or use \`cargo build --release\`" >&2
    return 1
}
profdata=$(find_profdata)

work=$(mktemp -d "${TMPDIR:-/tmp}/gatehouse-release-XXXXXX")
edge=
trap '[ -z "$edge" ] || kill "$edge" 2>/dev/null || true; wait; rm -rf "$work"' EXIT

cd "$root"
say "building the shard and the load"
cargo build --release --locked -p gatehouse-homeserver -p gatehouse-loadtests
say "building an edge that counts"
# Always the same place, so that what was built is not built again.
counts=$target/counting/counts
rm -rf "$counts"
# Optimised across crates it would count the same, and take longer to build.
CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-generate=$counts" \
    cargo build --release --locked -p gatehouse --target "$host" --target-dir "$target/counting"

say "counting"
secret=$(printf '%064d' 0)
https=$(free_port) federation=$(free_port)
mkdir "$work/programs"
cp "$target/counting/$host/release/gatehouse" "$target/release/gatehouse-homeserver" "$work/programs"
write_gatehouse "$work" "$https" "$federation" "$secret"
"$work/programs/gatehouse" run --config "$work/edge.toml" >"$work/edge.log" 2>&1 &
edge=$!
curl --silent --show-error --fail --output /dev/null --retry 60 --retry-delay 1 --retry-all-errors \
    --cacert "$work/ca/ca.pem" "https://localhost:$https/_matrix/client/versions" 2>"$work/curl.log" || {
    cat "$work/curl.log" "$work/edge.log" >&2
    exit 1
}
load() {
    "$target/release/gatehouse-loadtests" run --base "https://localhost:$https" --ca "$work/ca/ca.pem" \
        --shared-secret "$secret" --seconds 4 "$@" create-room send fan-out idle-sync messages media versions >&2
}
load
load --http2
# New connections, and answers that are compressed.
for _ in $(seq 200); do
    curl --silent --compressed --output /dev/null --cacert "$work/ca/ca.pem" "https://localhost:$https/_matrix/client/v3/sync"
done
kill "$edge"
wait "$edge" || true
edge=
"$profdata" merge --output "$work/edge.profdata" "$counts"

say "building the edge"
RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-use=$work/edge.profdata" \
    cargo build --release --locked -p gatehouse --target "$host" --target-dir "$target/counted"
mkdir -p "$target/installation"
cp "$target/counted/$host/release/gatehouse" "$target/release/gatehouse-homeserver" "$target/installation"
say "the programs are in $target/installation"
