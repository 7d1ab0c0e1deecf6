#!/usr/bin/env bash
#
# Puts a PgBouncer of version 1.21 or newer where a local Lakebase finds it, without touching the system.
#
#   bash get-pgbouncer.sh [DIRECTORY]     default: ${XDG_CACHE_HOME:-~/.cache}/lakebase-pooling/pgbouncer
#
# `lakebase local get-pooler` runs it; it is a program of its own for machines on which nothing is installed yet.
#
# Debian's own package of the suite `trixie` (1.24), or the one in SUITE; see `from-debian.sh`.

set -euo pipefail

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

# shellcheck source=lakebase/local/postgres/from-debian.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/from-debian.sh"
fetch_program pgbouncer pgbouncer "$target" "${SUITE:-trixie}"
