rule train:
    # The state of an unfinished training lies beside its folder, in checkpoint/, and is no output: Snakemake removes
    # the outputs of a failed job, and the next attempt must find it.
    input:
        decided=stamp("train"),
        pairs=rules.pairs.output,
        parsing=parsing_for("train"),
    output:
        f"{RESULTS}/{{dataset}}/{{model}}/seed{{seed}}/train/done.json",
    log:
        f"{LOGS}/train/{{dataset}}/{{model}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/train/{{dataset}}/{{model}}/seed{{seed}}.tsv"
    priority: 1  # what takes longest begins first
    retries: TRAINING_RETRIES
    conda:
        "../../environment.yml"
    threads: training_threads
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards: memory_of_training(BENCHMARK, wildcards.dataset),
    params:
        configuration=CONFIGURATION,
    message:
        "Training {wildcards.model}, seed {wildcards.seed}, on {wildcards.dataset}"
    shell:
        "python -m potgan train --config {params.configuration} --dataset {wildcards.dataset}"
        " --model {wildcards.model} --seed {wildcards.seed} 2>&1 | tee {log}"


rule feature_network:
    input:
        decided=stamp("feature_network"),
    output:
        f"{RESULTS}/feature-network/network.json",
    log:
        f"{LOGS}/feature-network.log",
    benchmark:
        f"{BENCHMARKS}/feature_network.tsv"
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
    message:
        "Training the classifier behind is-synthetic and fid-synthetic"
    shell:
        "python -m potgan feature-network --config {params.configuration} 2>&1 | tee {log}"
