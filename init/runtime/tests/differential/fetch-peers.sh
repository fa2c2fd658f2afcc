#!/bin/bash
# Fetches programs of Debian's testing suite, with the libraries they need, into <cache>/<folder>/root: crun and runc, which
# the differential tests compare berth-oci with, or `fetch-peers.sh FOLDER PACKAGE...`. Mirror and keys are the system's
# own (apt says which), its configuration and its packages are not touched, and no root rights are needed. Prints the
# folder of the root; does nothing if it is there.
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/berth/${1:-peers}
packages=("${@:2}")
[[ ${#packages[@]} -gt 0 ]] || packages=(crun runc)
root=$cache/root
if [[ ! -e $root ]]; then
    # shellcheck disable=SC2016 # apt fills these in
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep --max-count=1 '/debian/$' || true)
    [[ -n $mirror ]] || { echo "the system's apt sources name no mirror of Debian" >&2; exit 1; }
    rm --recursive --force "$cache"
    mkdir --parents "$cache"/{lists/partial,archives/partial,new}
    touch "$cache/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror testing main" >"$cache/sources.list"
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
