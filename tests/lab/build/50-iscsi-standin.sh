# The iSCSI stand-in, for machines whose kernel has no iSCSI.
# on failure: needs a Rust toolchain and a crates.io registry or mirror
. "$(dirname "$0")/../lib.sh"

grep -q iscsi-standin "$REPO/Cargo.toml" || exit 77   # TEMPORARY
before=$(stat -c %Y "$BIN_STANDIN" 2>/dev/null || true)
cd "$REPO"
CARGO_TARGET_DIR=$HANDOFF_CACHE/target-standin cargo build --release -p iscsi-standin
[ "$before" != "$(stat -c %Y "$BIN_STANDIN")" ] || exit 77
