#!/bin/bash
# Installs the packages of packages.txt that are missing, and the compiler's target. Shell, because on a fresh machine
# there is no linker yet that would build anything else.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
while read -r package _; do
    case "$package" in '' | '#'*) continue ;; esac
    state=$(dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    [[ $state == ii* ]] || missing+=("$package")
done <packages.txt

if ((${#missing[@]} > 0)); then
    echo "==> installing Debian packages: ${missing[*]}" >&2
    as_root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || { echo "root or sudo is needed to install them" >&2; exit 1; }
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
fi

command -v cargo >/dev/null || { echo "a Rust toolchain is needed: see https://rustup.rs" >&2; exit 1; }
if command -v rustup >/dev/null; then
    # rust-toolchain.toml names the version, its components and the target.
    cd ..
    installed=$(rustup target list --installed 2>/dev/null || true)
    [[ $installed == *x86_64-unknown-linux-musl* ]] || rustup toolchain install
fi
