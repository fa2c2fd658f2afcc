#!/bin/bash
# `fetch-debian.sh SUITE FOLDER PACKAGE...` fetches programs of another suite of Debian, with the libraries they need, into
# <cache>/FOLDER/root. Mirror and keys are the system's own (apt says which), its configuration and its packages are not
# touched, and no root rights are needed. Prints the folder of the root; does nothing if it is there.
set -euo pipefail
suite=$1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/berth/$2
packages=("${@:3}")
root=$cache/root
mkdir --parents "${cache%/*}"
exec {lock}>"$cache.lock"
flock "$lock"
if [[ ! -e $root ]]; then
    # shellcheck disable=SC2016 # apt fills these in
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep --max-count=1 '/debian/$' || true)
    # A list of mirrors, as Debian's cloud images have one, is no index target's address.
    [[ -n $mirror ]] || mirror=$(grep --recursive --no-filename --only-matching --extended-regexp \
        '(mirror\+[a-z]+|https?|file)://[^][:space:]]*debian[^][:space:]]*' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null |
        grep --invert-match --max-count=1 security || true)
    [[ -n $mirror ]] || { echo "the system's apt sources name no mirror of Debian" >&2; exit 1; }
    rm --recursive --force "$cache"
    mkdir --parents "$cache"/{lists/partial,archives/partial,new}
    touch "$cache/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$cache/sources.list"
    options=(-qq -o Dir::Etc::sourcelist="$cache/sources.list" -o Dir::Etc::sourceparts=- -o Dir::Cache="$cache"
        -o Dir::Cache::archives="$cache/archives" -o Dir::State::lists="$cache/lists" -o Dir::State::status="$cache/status"
        -o APT::Sandbox::User=root -o APT::Install-Recommends=false -o APT::Get::List-Cleanup=false)
    apt-get "${options[@]}" update >&2
    apt-get "${options[@]}" install --download-only --yes "${packages[@]}" >&2
    for package in "$cache"/archives/*.deb; do
        dpkg-deb --extract "$package" "$cache/new"
    done
    for link in bin sbin lib lib64; do
        [[ -e $cache/new/$link ]] || ln --symbolic "usr/$link" "$cache/new/$link"
    done
    rm --recursive --force "$cache"/{lists,archives,status,*.bin}
    mv "$cache/new" "$root"
fi
echo "$root"
