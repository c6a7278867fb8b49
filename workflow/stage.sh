#!/usr/bin/env bash
# workflow/stage.sh TARGET...: one DVC stage = Snakemake targets. Snakemake owns the graph, and answers "nothing to be done"
# in about a second where everything is up to date. Then folders of many images become one archive each, which DVC holds.
set -euo pipefail
snakemake --cores all -- "$@"
exec python -m potgan pack
