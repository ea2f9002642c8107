#!/usr/bin/env bash
# Make this checkout runnable: .venv with the locked versions and, on request, real programs.
#
#   scripts/setup.sh                   the Python environment only (make check needs no more)
#   scripts/setup.sh daemons           also Prometheus, Alertmanager and HAProxy
#   scripts/setup.sh daemons screen    also a screen without a monitor and Chromium (make test)
#
# Called by every make target. The surprise: it says nothing and does nothing when a stamp inside
# .venv carries the hash of the lock, pyproject.toml, this script and this folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv
LOCK=requirements/lock.txt
STAMP=$VENV/ready
THEME=/usr/share/icons/Adwaita

# HAProxy and friends live in sbin, which a plain user's PATH may leave out.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf 'set-up: %s\n' "$*" >&2; }
refuse() {
    printf '\nset-up cannot go on.\n' >&2
    printf '%s\n' "$@" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}
may_install() {
    have apt-get && { [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }
}

# Packaged daemons start themselves when installed; ours run on their own ports in their own folder.
# A policy-rc.d that says no is the packaging system's own switch; one that is already there stays.
# Left behind it would keep every later package's daemon from starting, so it goes however we end.
POLICY=/usr/sbin/policy-rc.d
PLACED=no
forbid_starts() {
    [ ! -e "$POLICY" ] || return 0
    trap allow_starts EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    PLACED=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
    as_root chmod 755 "$POLICY"
}
allow_starts() {
    [ "$PLACED" = yes ] || return 0
    as_root rm -f "$POLICY"
    PLACED=no
    trap - EXIT HUP INT TERM
}

UPDATED=no
apt_install() {
    local status=0 log
    if [ "$UPDATED" = no ]; then
        say "apt-get update"
        as_root apt-get -qq -o DPkg::Lock::Timeout=120 update >&2 || true
        UPDATED=yes
    fi
    forbid_starts
    say "apt-get install $*"
    log=$(mktemp)
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 \
        -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" >"$log" 2>&1 || status=$?
    [ "$status" = 0 ] || cat "$log" >&2
    rm -f "$log"
    allow_starts
    return "$status"
}

missing_daemons() {
    have prometheus && have promtool || echo prometheus
    { have prometheus-alertmanager || have alertmanager; } && have amtool || echo prometheus-alertmanager
    have haproxy || echo haproxy
}
elsewhere_daemons() {
    echo "  elsewhere:       install Prometheus >= 2.42 (with promtool), Alertmanager >= 0.25 (with amtool)"
    echo "                   and HAProxy >= 2.6 so that they are found on PATH, then run the same command again."
}

# The pointer of the recordings is Adwaita's; without a theme X draws one that no model was trained on.
missing_screen() {
    have Xvfb || echo xvfb
    have xdotool || echo xdotool
    have xterm || echo xterm
    have chromium || have chromium-browser || have google-chrome-stable || echo chromium
    [ -e "$THEME/cursors/left_ptr" ] || echo adwaita-icon-theme
}
elsewhere_screen() {
    echo "  elsewhere:       install Xvfb, xdotool, xterm and Chromium (or google-chrome-stable, as on Ubuntu,"
    echo "                   whose chromium is a snap) so that they are found on PATH, and the cursors of"
    echo "                   GNOME's Adwaita in $THEME, then run the same command again."
}

# ensure daemons|screen: install what is missing where that is allowed, else say how to.
ensure() {
    local what=$1 missing
    mapfile -t missing < <("missing_$what")
    [ ${#missing[@]} -gt 0 ] || return 0
    if may_install; then
        apt_install "${missing[@]}" || true
        if [ "$what" = daemons ] && have systemctl && [ -d /run/systemd/system ]; then
            # Installed by us a moment ago, so nobody relies on them starting with the machine.
            as_root systemctl disable --quiet "${missing[@]}" 2>/dev/null || true
        fi
    fi
    mapfile -t missing < <("missing_$what")
    [ ${#missing[@]} -gt 0 ] || return 0
    refuse "Missing for the $what: ${missing[*]}" \
        "  Debian, Ubuntu:  sudo apt-get install --no-install-recommends ${missing[*]}" \
        "$("elsewhere_$what")" \
        "make check needs none of them."
}

python_ok() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}
find_python() {
    local name
    for name in python3 python3.11 python3.12 python3.13 python; do
        if have "$name" && python_ok "$name"; then
            echo "$name"
            return 0
        fi
    done
    return 1
}

ensure_python() {
    PYTHON=$(find_python || true)
    if [ -z "$PYTHON" ] && may_install; then
        apt_install python3 python3-venv || true
        PYTHON=$(find_python || true)
    fi
    [ -n "$PYTHON" ] || refuse "No Python 3.11 or newer was found (tried python3, python3.11, python3.12, python3.13)." \
        "  Debian 12 or newer, Ubuntu 24.04:  sudo apt-get install python3 python3-venv" \
        "  elsewhere: install Python 3.11+ so that python3.11 (or newer) is found on PATH."
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null && return 0
    if may_install; then
        apt_install python3-venv || true
    fi
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || refuse \
        "$("$PYTHON" --version) has no venv module with pip." "  Debian, Ubuntu:  sudo apt-get install python3-venv"
}

wanted_stamp() {
    { cat "$LOCK" pyproject.toml scripts/setup.sh; pwd; } | sha256sum | cut -d' ' -f1
}

pip_() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

# Which build of torch: with an NVIDIA GPU exactly the plain one (=== does not match a +cpu wheel);
# without, the CPU build where the configured indexes offer it, because the plain one brings CUDA along.
torch_requirement() {
    local version
    version=$(sed -nE 's/^torch==([0-9.]+).*/\1/p' "$LOCK")
    if have nvidia-smi && nvidia-smi >/dev/null 2>&1; then
        say "NVIDIA GPU found: torch $version with CUDA"
        echo "torch===$version"
    elif pip_ install --quiet --dry-run --no-deps "torch==$version+cpu" >/dev/null 2>&1; then
        echo "torch==$version+cpu"
    else
        [ "$(uname -sm)" != "Linux x86_64" ] ||
            say "no CPU build of torch $version on the configured package indexes: taking the plain one, a download of several GB"
        echo "torch==$version"
    fi
}

ensure_venv() {
    local wanted started=$SECONDS
    wanted=$(wanted_stamp)
    if [ -x "$VENV/bin/python" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    ensure_python
    if ! { [ -x "$VENV/bin/python" ] && python_ok "$VENV/bin/python" && pip_ --version >/dev/null 2>&1; }; then
        rm -rf "$VENV"
        "$PYTHON" -m venv "$VENV"
    fi
    rm -f "$STAMP"
    say "installing the locked versions into $VENV (about a minute, once)"
    # Both names: older pip applies PIP_CONSTRAINT to isolated builds too, newer pip wants the second.
    export PIP_CONSTRAINT="${PIP_CONSTRAINT:+$PIP_CONSTRAINT }$LOCK"
    export PIP_BUILD_CONSTRAINT=$LOCK
    pip_ install -qq "$(torch_requirement)" --editable ".[detector,postgres,dev]" >&2 ||
        refuse "pip could not install the locked versions; its message is above." \
            "  Without network access, point pip at a package folder (PIP_FIND_LINKS) and run the same command again."
    echo "$wanted" >"$STAMP"
    say "ready in $((SECONDS - started)) s"
}

# Two make commands at once take turns; the lock is on a tracked file, so nothing has to be created.
if have flock; then
    exec 9<"$LOCK"
    flock 9
fi
ensure_venv
for what in "$@"; do
    case $what in
        daemons | screen) ensure "$what" ;;
        *) refuse "scripts/setup.sh knows daemons and screen, not '$what'." ;;
    esac
done
