rule generate:
    input:
        decided=stamp("generate"),
        checkpoint=trained_checkpoint,
        pairs=rules.pairs.output,
        parsing=parsing_for("generate"),
    output:
        f"{RESULTS}/{{dataset}}/{{method}}/seed{{seed}}/generate/generated.csv",
        f"{RESULTS}/{{dataset}}/{{method}}/seed{{seed}}/generate/generate.json",
    log:
        f"{LOGS}/generate/{{dataset}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/generate/{{dataset}}/{{method}}/seed{{seed}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=GPU,
    params:
        configuration=CONFIGURATION,
    message:
        "Images of {wildcards.method}, seed {wildcards.seed}, on {wildcards.dataset}"
    shell:
        "python -m potgan generate --config {params.configuration} --dataset {wildcards.dataset}"
        " --method {wildcards.method} --seed {wildcards.seed} 2>&1 | tee {log}"


rule evaluate:
    input:
        decided=stamp("evaluate"),
        generated=rules.generate.output,
        network=made("feature_network"),
    output:
        f"{RESULTS}/{{dataset}}/{{method}}/seed{{seed}}/evaluate/scores.json",
        f"{RESULTS}/{{dataset}}/{{method}}/seed{{seed}}/evaluate/per-pair.csv",
        f"{RESULTS}/{{dataset}}/{{method}}/seed{{seed}}/evaluate/sensitivity.csv",
    log:
        f"{LOGS}/evaluate/{{dataset}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{dataset}}/{{method}}/seed{{seed}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=GPU,
    params:
        configuration=CONFIGURATION,
    message:
        "Scores of {wildcards.method}, seed {wildcards.seed}, on {wildcards.dataset}"
    shell:
        "python -m potgan evaluate --config {params.configuration} --dataset {wildcards.dataset}"
        " --method {wildcards.method} --seed {wildcards.seed} 2>&1 | tee {log}"
