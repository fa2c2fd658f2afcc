#!/bin/bash
# Unit tests, then the image in QEMU.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --quiet --workspace
cargo run --quiet --profile fast --package berth-image-build -- image
cargo run --quiet --profile fast --package berth-tests
