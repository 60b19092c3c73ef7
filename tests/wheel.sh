#!/usr/bin/env sh
# Build the wheel, install it into an empty environment, and start the demo, the commands and the page from there.
set -eu
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
running=
trap '[ -z "$running" ] || kill "$running" 2>/dev/null || true; rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check build
"$work/venv/bin/python" -m build --quiet --wheel --outdir "$work/dist" "$root"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -c "$root/constraints.txt" torch
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -c "$root/constraints.txt" "$work"/dist/*.whl
cd "$work"

# until_log FILE TEXT TRIES WHAT: wait until TEXT stands in FILE while $running runs, two seconds a try.
until_log() {
	tries=0
	until grep -q "$2" "$1"; do
		kill -0 "$running" 2>/dev/null || { cat "$1"; echo "$4 ended too early"; exit 1; }
		tries=$((tries + 1))
		[ $tries -lt "$3" ] || { cat "$1"; echo "$4 did not come to \"$2\" within $((2 * $3)) seconds"; exit 1; }
		sleep 2
	done
}

# stop: end what runs in the background.
stop() {
	kill "$running"
	wait "$running" 2>/dev/null || true
	running=
}

venv/bin/twostream --version
venv/bin/twostream demo --out demo >out 2>log &
running=$!
until_log log "train S" 300 "the demo"
stop
venv/bin/twostream status demo
echo "the demo was started from the wheel in an empty environment"

# The page needs no queue to show: its templates, its scripts and its styles come from the wheel.
venv/bin/twostream serve demo --port 0 >page 2>&1 &
running=$!
until_log page "http://" 60 "the page"
venv/bin/python - "$(grep -o 'http://[^[:space:]]*' page | head -n 1)" <<'PYTHON'
"""Open the printed link, and fetch everything that the page names."""

import re
import sys
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar

opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
with opener.open(sys.argv[1], timeout=30) as answer:
    page, address = answer.read().decode(), answer.url
named = re.findall(r'(?:src|href)="([^"#]+\.(?:js|css)[^"]*)"', page)
assert named, f"the page names no script and no style: {page[:2000]}"
for name in named:
    with opener.open(urllib.parse.urljoin(address, name), timeout=30) as answer:
        assert answer.status == 200 and answer.read(), name
print(f"the page was opened, with {len(named)} scripts and styles")
PYTHON
stop
echo "the wheel works: the demo and the page were started from it in an empty environment"
