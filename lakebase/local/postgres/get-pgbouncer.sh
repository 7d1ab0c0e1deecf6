#!/usr/bin/env bash
#
# Puts a PgBouncer of version 1.21 or newer where a local Lakebase finds it, without touching the system.
#
#   bash get-pgbouncer.sh [DIRECTORY]     default: ${XDG_CACHE_HOME:-~/.cache}/lakebase-pooling/pgbouncer
#
# `lakebase local get-pooler` runs it; it is a program of its own for machines on which nothing is installed yet.
#
# Debian's own package is fetched from its suite `trixie` (1.24), or the one in SUITE, by apt with a configuration of its
# own, together with the libraries it names. All is unpacked into the directory and started through the loader in there,
# so neither the machine's packages nor its libraries matter. Needs apt and dpkg-deb; no root.

set -euo pipefail

suite=${SUITE:-trixie}
target=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/lakebase-pooling/pgbouncer}

new_enough() { # whether program $1 runs and is 1.21 or newer
    local version
    version=$("$1" --version 2>/dev/null | sed -n 's/^PgBouncer \([0-9]*\)\.\([0-9]*\).*/\1 \2/p') || return 1
    [[ -n $version ]] && (((${version% *} * 1000 + ${version#* }) >= 1021))
}

for found in "$target/pgbouncer" pgbouncer /usr/sbin/pgbouncer; do
    if command -v "$found" >/dev/null && new_enough "$found"; then
        echo "there is one: $(command -v "$found"), $("$found" --version | head -n 1)"
        exit 0
    fi
done

for tool in apt-get apt-cache dpkg-deb dpkg; do
    command -v "$tool" >/dev/null || { echo "no PgBouncer fetched: '$tool' is missing, this is no Debian" >&2; exit 1; }
done

work=$(mktemp -d "${TMPDIR:-/tmp}/get-pgbouncer.XXXXXX")
trap 'rm -rf -- "$work"' EXIT

# The mirror that this machine uses already, and Debian's keys.
mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 2>/dev/null | awk '$1 == "Debian" { print $2; exit }')
[[ -n $mirror ]] || mirror=$(awk '/^URIs:/ && /\/debian\/?$/ { print $2; exit }' /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
[[ -n $mirror ]] || mirror=$(awk '$1 == "deb" && /\/debian\/? / { for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) { print $i; exit } }' /etc/apt/sources.list 2>/dev/null || true)
[[ -n $mirror ]] || { echo "no PgBouncer fetched: no Debian mirror is configured here" >&2; exit 1; }

mkdir -p "$work"/{lists,archives,packages,parts}
: >"$work/status"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
options=(
    -o "Dir::Etc::SourceList=$work/sources.list" -o "Dir::Etc::SourceParts=$work/parts"
    -o "Dir::Etc::PreferencesParts=$work/parts" -o "Dir::Etc::Preferences=/dev/null"
    -o "Dir::State::Lists=$work/lists" -o "Dir::State::Status=$work/status"
    -o "Dir::Cache::Archives=$work/archives" -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache="
    -o "Acquire::Languages=none" -o "APT::Sandbox::User=" -o "Acquire::Retries=3"
)
apt-get "${options[@]}" -qq update

# The libraries below it; what its maintainer scripts want (adduser, init scripts) is not needed to run it.
mapfile -t libraries < <(
    apt-cache "${options[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances pgbouncer | grep -E '^(lib|zlib)[a-z0-9.+-]*$' | grep -vE '^(libc-bin|libpam-|libperl)' | sort -u
)
echo "fetching pgbouncer and ${#libraries[@]} libraries of Debian $suite"
(cd "$work/packages" && apt-get "${options[@]}" -qq download pgbouncer "${libraries[@]}")

root=$work/root
mkdir -p "$root"
for package in "$work"/packages/*.deb; do
    dpkg-deb -x "$package" "$root"
done

program=$(find "$root" -type f -path '*/sbin/pgbouncer' | head -n 1)
loader=$(find -L "$root" -type f -name 'ld-linux-*.so.*' | head -n 1)
[[ -n $program && -n $loader ]] || { echo "no PgBouncer fetched: the packages do not have what was expected" >&2; exit 1; }

# Flat: the program, its loader, and one folder with just the libraries that the loader takes for it.
mkdir -p "$work/out/lib"
folders=$(find "$root" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
"$loader" --library-path "$folders" --list "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
    while IFS= read -r library; do cp -L "$library" "$work/out/lib/"; done
cp -L "$loader" "$work/out/lib/loader"
cp "$program" "$work/out/pgbouncer.real"
cat >"$work/out/pgbouncer" <<'WRAPPER'
#!/bin/sh
here=$(dirname -- "$(readlink -f -- "$0")")
exec "$here/lib/loader" --library-path "$here/lib" "$here/pgbouncer.real" "$@"
WRAPPER
chmod -R a+rX,u+w "$work/out"
chmod 755 "$work/out/pgbouncer" "$work/out/pgbouncer.real" "$work/out/lib/loader"

new_enough "$work/out/pgbouncer" || { echo "no PgBouncer fetched: the one of Debian $suite does not run or is too old" >&2; exit 1; }
mkdir -p "$(dirname -- "$target")"
rm -rf -- "$target"
mv -- "$work/out" "$target"
echo "fetched: $target/pgbouncer, $("$target/pgbouncer" --version | head -n 1)"
