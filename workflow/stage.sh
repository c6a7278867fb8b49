#!/usr/bin/env bash
# workflow/stage.sh TARGET...: one DVC stage = Snakemake targets. Snakemake owns the graph, and answers "nothing to be done"
# in about a second where everything is up to date.
set -euo pipefail
exec snakemake --cores all -- "$@"
