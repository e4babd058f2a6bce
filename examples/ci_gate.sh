#!/bin/sh
# Fails a CI job when a dump of a folder shows heap damage, and writes SARIF for code scanning.
#
#   sh examples/ci_gate.sh DUMPS SARIF
#
# DUMPS: the folder with *.dmp files that the tests left. SARIF: the folder for one .sarif file a dump.
# Exit code: 0 no damage, 1 damage, else that of heapdump (2 usage, 3 not a readable minidump).
# HEAPDUMP names another command, such as "python -m heapdump".
set -u
dumps=${1:?usage: ci_gate.sh DUMPS SARIF}
sarif=${2:?usage: ci_gate.sh DUMPS SARIF}
mkdir -p "$sarif"
result=0
for dump in "$dumps"/*.dmp; do
    [ -e "$dump" ] || continue
    name=$(basename "$dump" .dmp)
    # shellcheck disable=SC2086  # HEAPDUMP may be several words
    ${HEAPDUMP:-heapdump} check "$dump" --sarif "$sarif/$name.sarif" --no-cache --quiet >"$sarif/$name.txt"
    case $? in
        0) echo "$name: no damage" ;;
        1) echo "$name: damaged"; cat "$sarif/$name.txt"; result=1 ;;
        4) echo "$name: no damage in what the dump holds; part of it is missing" ;;
        *) exit $? ;;
    esac
done
exit $result
