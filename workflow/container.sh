#!/usr/bin/env bash
# What a container runs: Snakemake in the folder that it is started in, where results/, reports/ and data/ appear.
#
# container.sh [ARGUMENTS OF SNAKEMAKE] | container.sh potgan|snakemake|dvc|tensorboard|python [ARGUMENTS]
# Without a config/config.yaml in that folder, and without --configfile, the embedded benchmark is run. Where the folder is
# a checkout of the repository, its own workflow is.
set -euo pipefail
project=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
export PATH="$project/.venv/bin:$PATH"
# A user who is unknown inside (docker --user) has neither name nor home, and caches want both.
export USER="${USER:-potgan}"
if [ ! -w "${HOME:-/}" ]; then
    HOME=$(mktemp -d)
    export HOME
fi

case "${1:-}" in
potgan | snakemake | dvc | tensorboard | python) exec "$@" ;;
esac
workflow=()
if [ ! -e Snakefile ]; then # else the folder is a checkout, whose own workflow and package are run
    if [ ! -e config/config.yaml ] && [[ " $* " != *" --configfile"* ]]; then
        workflow+=(--configfile "$project/config/config.yaml")
    fi
    # After --configfile, which takes every word up to the next option.
    workflow+=(--snakefile "$project/Snakefile")
fi
exec snakemake "${workflow[@]}" "$@"
