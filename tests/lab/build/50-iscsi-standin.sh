# The iSCSI stand-in.
# on failure: needs a Rust toolchain and a crate registry
. "$(dirname "$0")/../lib.sh"

fresh "$BIN_STANDIN" "$LAB_DIR"/iscsi-standin/{Cargo.toml,src/*.rs} && exit 77
cd "$REPO"
CARGO_TARGET_DIR=$HANDOFF_CACHE/target-standin cargo build --release -p iscsi-standin
cp "$HANDOFF_CACHE/target-standin/release/iscsi-standin" "$BIN_STANDIN.tmp"
finish "$BIN_STANDIN"
