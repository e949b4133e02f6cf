#!/bin/sh
# Fuzzes every target for a while, two at a time:
#   scripts/fuzz.sh [TIME [TARGET]]    TIME as 5s, 10m or 1000x (inputs), TARGET a regular expression
# An input that fails is kept in testdata/fuzz of its package: mend what it
# found and commit it, so that every run of the tests has it.
set -eu
cd "$(dirname "$0")/.."

export FUZZTIME="${1:-5s}"
go=${GO:-go}
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
export bin
corpus=$("$go" env GOCACHE)/fuzz
export corpus

# Coverage guides the fuzzer, but needs all packages to be built anew, which is
# not worth it for a second or two. A count of inputs has no deadline, which Go
# sometimes reports as a failure of the target.
case $FUZZTIME in
*x | [1-3]s) guided= ;;
*) guided=-fuzz=. ;;
esac

# package directory, target
targets=$(grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . |
    sed -n 's|^\./\(.*\)/[^/]*:func \(.*\)$|\1 \2|p' | grep -E -- "${2:-}" | sort)

for package in $(echo "$targets" | cut -d ' ' -f 1 | uniq); do
    mkdir -p "$bin/$package"
    nice -n 19 "$go" test -c $guided -o "$bin/$package/test" "./$package"
done

one='
log=$bin/$1/$2.log
cd "$1"
if "$bin/$1/test" -test.run "^$" -test.fuzz "^$2\$" -test.fuzztime "$FUZZTIME" -test.fuzzminimizetime 2s \
    -test.fuzzcachedir "$corpus/planck/$1" -test.parallel 1 >"$log" 2>&1; then
    printf "%s: %s\n" "$2" "$(grep "^fuzz: elapsed" "$log" | tail -n 1 | sed "s/^fuzz: //")"
else
    cat "$log"
    exit 1
fi'
echo "$targets" | nice -n 19 xargs -n 2 -P 2 sh -c "$one" fuzz
