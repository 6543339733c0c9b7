#!/bin/sh
# Adds to .venv what tests and lint need. Run by `make install-dev`, after scripts/install.sh.
set -eu
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

# The tests run against Redis as well as Valkey, and against MariaDB as well as SQLite. Where one
# can not be installed its tests say so and are skipped; in CI they fail.
install_server() {
    if ! scripts/apt-install.sh "$1"; then
        echo "Without $1 its tests are skipped." >&2
        return
    fi
    # Not started by the installation, and not to be started at the next boot either.
    if [ -d /run/systemd/system ]; then
        root=""
        [ "$(id -u)" = 0 ] || root="sudo -n"
        $root systemctl disable --quiet "$2" || true
    fi
}

command -v redis-server >/dev/null || [ -x /usr/bin/redis-server ] || install_server redis-server redis-server
command -v mariadbd >/dev/null || [ -x /usr/sbin/mariadbd ] || install_server mariadb-server mariadb

echo "Installing packages for tests and lint"
.venv/bin/pip install --quiet --require-hashes --requirement requirements/dev.txt
touch .venv/.installed-dev
