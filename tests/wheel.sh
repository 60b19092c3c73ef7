#!/usr/bin/env sh
# Build the wheel, install it into an empty environment, and start the demo and the commands from there.
set -eu
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check build
"$work/venv/bin/python" -m build --quiet --wheel --outdir "$work/dist" "$root"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -c "$root/constraints.txt" torch
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -c "$root/constraints.txt" "$work"/dist/*.whl
cd "$work"
venv/bin/twostream --version
venv/bin/twostream demo --out demo 2>log &
demo=$!
tries=0
until grep -q "train S" log; do
	kill -0 $demo 2>/dev/null || { cat log; exit 1; }
	tries=$((tries + 1))
	[ $tries -lt 300 ] || { echo "the demo did not come to train S within 10 minutes"; kill $demo; exit 1; }
	sleep 2
done
kill $demo
wait $demo 2>/dev/null || true
venv/bin/twostream status demo
echo "the wheel works: the demo was started from it in an empty environment"
