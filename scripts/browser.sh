#!/usr/bin/env sh
# The browser test needs Chromium and its driver. Where they are missing and we may install, get them from Debian;
# elsewhere the test says why it is skipped.
set -eu
if command -v chromium >/dev/null 2>&1 && command -v chromedriver >/dev/null 2>&1; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver; } >/dev/null 2>&1 ||
    echo "browser test: chromium could not be installed, so it will be skipped" >&2
else
  echo "browser test: no chromium and no right to install it, so it will be skipped" >&2
fi
