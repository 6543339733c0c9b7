#!/bin/sh
# Usage: scripts/apt-install.sh PACKAGE...
# Installs Debian packages where that is possible without a question (as root, or sudo without
# a password); else prints the command to run. No service that a package brings is started.
set -eu

if ! command -v apt-get >/dev/null; then
    echo "Please install with your system's package manager (names as in Debian): $*" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null; then
        exec sudo -n "$0" "$@"
    fi
    echo "System packages are missing. Please run this, then make again:" >&2
    echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends $*" >&2
    exit 1
fi

# Debian's package scripts ask this program before they start a service; 101 means no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
echo "Installing system packages: $*"
apt-get -qq update || echo "apt-get update failed; trying with the lists that are there" >&2
apt-get -qq install -y --no-install-recommends "$@" >/dev/null </dev/null
