#!/bin/bash
# Everything a machine can say about the sources without running them.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "==> rustfmt" >&2
cargo fmt --all --check
echo "==> clippy" >&2
cargo clippy --quiet --workspace --all-targets -- -D warnings
echo "==> shellcheck" >&2
git ls-files -z --cached --others --exclude-standard -- '*.sh' '.ci/*' | xargs -0 shellcheck
echo "==> dependencies" >&2
cargo run --quiet --profile fast --package berth-image-build -- dependencies
