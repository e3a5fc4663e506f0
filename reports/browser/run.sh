#!/bin/sh
# Opens the reports of the samples in headless Chromium and checks what a reader
# does with them; screenshots and PDFs stay in build/browser. Arguments name
# samples; without any, the main ones are taken. 69: what it needs is not there.
set -eu
cd "$(dirname "$0")/../.."
missing=
for p in chromium node npm; do command -v $p >/dev/null || missing="$missing $p"; done
if [ -n "$missing" ]; then
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    (apt-get update -q && apt-get install -qy --no-install-recommends chromium nodejs npm) || exit 69
  else
    echo "make browser needs$missing; on Debian: apt-get install chromium nodejs npm" >&2
    exit 69
  fi
fi
out=build/browser
mkdir -p $out
CGO_ENABLED=0 go build -o $out/squall ./cmd/squall
cp reports/browser/package.json reports/browser/check.mjs $out/
npm install --prefix $out --no-package-lock --no-audit --no-fund --silent || {
  echo "make browser needs playwright-core from the npm registry, and could not get it" >&2
  exit 69
}
node $out/check.mjs $out "$@"
