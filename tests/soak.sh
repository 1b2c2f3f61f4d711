#!/bin/sh
# The tests marked soak, one by one. What has passed on this commit is not run again, so that an interrupted soak goes on.
set -eu
state="soak/$(git rev-parse HEAD)"
mkdir -p soak
touch "$state"
# the project's own -q and this one would be too quiet to name the tests
pytest --override-ini addopts= --collect-only -q -m soak | grep '::' > "$state.all"
failed=0
while read -r name; do
    grep -qxF "$name" "$state" && continue
    printf '%s %s\n' "$(date -u +%H:%M:%S)" "$name"
    if pytest -q -m soak "$name" < /dev/null; then echo "$name" >> "$state"; else failed=$((failed + 1)); fi
done < "$state.all"
echo "$(wc -l < "$state") passed, $failed failed"
test "$failed" -eq 0
