# To be sourced: fetches Debian packages, with all they need, without touching the system.
#
#   fetch_packages "PACKAGE..." SUITE                     unpacks them into "$root"; removed with "$work" at the end
#   fetch_program "PACKAGE..." PROGRAM TARGET SUITE       puts one program of them into TARGET
#
# The packages are fetched from their suite by apt with a configuration of its own, with the libraries they name. A program
# is started through the loader in TARGET, so neither the machine's packages nor its libraries matter. Needs apt and
# dpkg-deb; no root.

fetch_packages() { # sets work, root
    local packages suite=$2 name tool mirror keyring package
    read -ra packages <<<"$1"
    name=${packages[0]}
    for tool in apt-get apt-cache dpkg-deb dpkg; do
        command -v "$tool" >/dev/null || { echo "no $name fetched: '$tool' is missing, this is no Debian" >&2; exit 1; }
    done

    work=$(mktemp -d "${TMPDIR:-/tmp}/get-$name.XXXXXX")
    trap "rm -rf -- '$work'" EXIT

    # The mirror that this machine uses already, and Debian's keys.
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 2>/dev/null | awk '$1 == "Debian" { print $2; exit }')
    [[ -n $mirror ]] || mirror=$(awk '/^URIs:/ && /\/debian\/?$/ { print $2; exit }' /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
    [[ -n $mirror ]] || mirror=$(awk '$1 == "deb" && /\/debian\/? / { for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) { print $i; exit } }' /etc/apt/sources.list 2>/dev/null || true)
    [[ -n $mirror ]] || { echo "no $name fetched: no Debian mirror is configured here" >&2; exit 1; }

    mkdir -p "$work"/{lists,archives,packages,parts}
    : >"$work/status"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
    local options=(
        -o "Dir::Etc::SourceList=$work/sources.list" -o "Dir::Etc::SourceParts=$work/parts"
        -o "Dir::Etc::PreferencesParts=$work/parts" -o "Dir::Etc::Preferences=/dev/null"
        -o "Dir::State::Lists=$work/lists" -o "Dir::State::Status=$work/status"
        -o "Dir::Cache::Archives=$work/archives" -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache="
        -o "Acquire::Languages=none" -o "APT::Sandbox::User=" -o "Acquire::Retries=3"
    )
    apt-get "${options[@]}" -qq update

    # The libraries below it; what its maintainer scripts want (adduser, init scripts) is not needed to run it.
    local libraries
    mapfile -t libraries < <(
        apt-cache "${options[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
            --no-enhances "${packages[@]}" | grep -E '^(lib|zlib)[a-z0-9.+-]*$' | grep -vE '^(libc-bin|libpam-|libperl)' | sort -u
    )
    echo "fetching ${packages[*]} and ${#libraries[@]} libraries of Debian $suite"
    (cd "$work/packages" && apt-get "${options[@]}" -qq download "${packages[@]}" "${libraries[@]}")

    root=$work/root
    mkdir -p "$root"
    for package in "$work"/packages/*.deb; do
        dpkg-deb -x "$package" "$root"
    done

}

fetch_program() {
    local name=$2 target=$3 suite=$4 program loader folders
    fetch_packages "$1" "$suite"

    program=$(find -L "$root" -type f -path "*bin/$name" | head -n 1)
    loader=$(find -L "$root" -type f -name 'ld-linux-*.so.*' | head -n 1)
    [[ -n $program && -n $loader ]] || { echo "no $name fetched: the packages do not have what was expected" >&2; exit 1; }

    # Flat: the program, its loader, and one folder with just the libraries that the loader takes for it.
    mkdir -p "$work/out/lib"
    folders=$(find "$root" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
    "$loader" --library-path "$folders" --list "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
        while IFS= read -r library; do cp -L "$library" "$work/out/lib/"; done
    cp -L "$loader" "$work/out/lib/loader"
    cp -L "$program" "$work/out/$name.real"
    cat >"$work/out/$name" <<WRAPPER
#!/bin/sh
here=\$(dirname -- "\$(readlink -f -- "\$0")")
exec "\$here/lib/loader" --library-path "\$here/lib" "\$here/$name.real" "\$@"
WRAPPER
    chmod -R a+rX,u+w "$work/out"
    chmod 755 "$work/out/$name" "$work/out/$name.real" "$work/out/lib/loader"

    new_enough "$work/out/$name" || { echo "no $name fetched: the one of Debian $suite does not run or is too old" >&2; exit 1; }
    mkdir -p "$(dirname -- "$target")"
    rm -rf -- "$target"
    mv -- "$work/out" "$target"
    echo "fetched: $target/$name, $("$target/$name" --version | head -n 1)"
}
