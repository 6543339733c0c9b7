#!/bin/sh
# Prints users.acl with a password for every user that has a file of its name in a folder of secrets:
#
#   set-passwords.sh users.acl /run/secrets/broker > /data/users.acl
#   valkey-server valkey.conf --aclfile /data/users.acl
#
# Only the SHA-256 is written. A user without a file can not log in.
set -eu
acl=$1
secrets=$2
while read -r keyword name rules; do
    hash=""
    if [ -f "$secrets/$name" ]; then
        hash=" #$(tr -d '\n' <"$secrets/$name" | sha256sum | cut -c 1-64)"
    fi
    printf '%s %s%s %s\n' "$keyword" "$name" "$hash" "$rules"
done <"$acl"
