# The S3 server.
# on failure: run `lab build` again, it goes on with what is compiled; needs a Go module proxy
. "$(dirname "$0")/../lib.sh"

[ -d "$BIN_VERSITYGW" ] && exit 77
cd /
mkdir -p "$BIN_VERSITYGW.tmp"
CGO_ENABLED=0 GOBIN=$BIN_VERSITYGW.tmp go install -p 2 -trimpath -buildvcs=false -ldflags "-s -w" \
  github.com/versity/versitygw/cmd/versitygw@v"$VERSITYGW"
mv "$BIN_VERSITYGW.tmp" "$BIN_VERSITYGW"
