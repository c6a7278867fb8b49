# The workflow is workflow/Snakefile. An include has no default target, so it is repeated here: without it
# `snakemake --cores 8` would say "nothing to be done".
include: "workflow/Snakefile"


rule default:
    default_target: True
    input:
        rules.all.input,
