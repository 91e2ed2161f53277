#!/bin/bash
# dropwatch as the documentation calls it, but for a moment only: what waits for a signal or counts reports ends by itself.
words=()
case ${1-} in
watch | trace | dig) words=("$1" -d 300ms) && kind=$1 && shift ;;
serve) exec timeout --preserve-status --signal=INT 1 "$DROPWATCH" "$@" ;;
-* | '') words=(-d 300ms) && kind=watch ;;
*) exec "$DROPWATCH" "$@" ;;
esac
# Without a terminal, a table must be named.
[[ $kind == watch && " $* " != *" -o "* ]] && words+=(-o table)
while (($#)); do
    case $kind$1 in
    *-d | watch-n | watch-i) shift ;;
    *) words+=("$1") ;;
    esac
    shift
done
exec "$DROPWATCH" "${words[@]}"
