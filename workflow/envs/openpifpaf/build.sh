#!/usr/bin/env bash
# Build the environment of the OpenPifPaf worker from the lock beside this file: build.sh ENV_FOLDER [PYTHON]
#
# ENV_FOLDER/ready, written last, holds the SHA-256 of the lock: with the same lock a second call does nothing; a build
# that was killed, or one of another lock, is removed and made anew. PYTHON must be 3.10 or 3.11 (default: the first of
# python3.11, python3.10, python3 that is). Compiling OpenPifPaf takes 1.5 to 5 minutes on two cores.
set -euo pipefail

fail() {
    echo "build.sh: $1" >&2
    exit 2
}

[ $# -ge 1 ] && [ $# -le 2 ] || fail "usage: build.sh ENV_FOLDER [PYTHON]"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lock="$here/requirements.lock"
folder=$1

is_old_enough() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 11))' >/dev/null 2>&1
}

digest=$(sha256sum "$lock" 2>/dev/null || shasum -a 256 "$lock") # shasum: macOS
digest=${digest%% *}
if [ -f "$folder/ready" ] && [ "$(cat "$folder/ready")" = "$digest" ] && [ -x "$folder/bin/python" ]; then
    echo "$folder: complete"
    exit 0
fi

if [ $# -eq 2 ]; then
    python=$2
    is_old_enough "$python" || fail "$python is not Python 3.10 or 3.11, which OpenPifPaf 0.13.11 needs: name one, build.sh $folder /path/to/python3.11"
else
    python=
    for candidate in python3.11 python3.10 python3 python; do
        if is_old_enough "$candidate"; then
            python=$candidate
            break
        fi
    done
    [ -n "$python" ] || fail "no Python 3.10 or 3.11, which OpenPifPaf 0.13.11 needs, is on the PATH: install one, or name it, build.sh $folder /path/to/python3.11"
fi
compiler=${CXX:-c++}
command -v "${compiler%% *}" >/dev/null || fail "no C++ compiler ($compiler), which OpenPifPaf's decoder needs: install g++ (Debian: apt-get install g++), or set CXX"
command -v uv >/dev/null || fail "no uv on the PATH: install it (pip install uv), or put the project's environment on the PATH"
if [ -e "$folder" ] && [ ! -f "$folder/pyvenv.cfg" ] && [ -n "$(ls -A "$folder")" ]; then
    fail "$folder is there and is no virtual environment: name another folder, or remove it"
fi

# `ready` goes first and comes last: whatever happens in between, the folder is not taken for complete.
mkdir -p "$folder"
rm -f "$folder/ready"
uv venv --quiet --clear --python "$("$python" -c 'import sys; print(sys.executable)')" "$folder"
folder=$(cd "$folder" && pwd)
# The source build runs a tool of the environment (ninja) and takes its torch; pyproject.toml, which uv reads in the
# current folder, says that it is built without isolation.
export VIRTUAL_ENV="$folder" PATH="$folder/bin:$PATH" MAX_JOBS="${MAX_JOBS:-2}"
cd "$here"
uv pip install --quiet --no-deps --require-hashes --requirements "$lock" ||
    fail "the lock could not be installed; read the lines above, then run this again"
version=$("$folder/bin/python" -c 'import openpifpaf; print(openpifpaf.__version__)') ||
    fail "OpenPifPaf was installed and cannot be imported; read the lines above"
echo "$digest" >"$folder/ready.partial"
mv "$folder/ready.partial" "$folder/ready"
echo "$folder: OpenPifPaf $version"
