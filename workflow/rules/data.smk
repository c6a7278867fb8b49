# Archives in the layouts of the real data sets, filled with synthetic people: a configuration that names them as sources
# takes the real paths from beginning to end, with no download.
rule imitate:
    output:
        f"{IMITATIONS}/{{kind}}/imitation.json",
    log:
        f"{IMITATIONS}/logs/{{kind}}.log",
    benchmark:
        f"{BENCHMARKS}/imitate/{{kind}}.tsv"
    wildcard_constraints:
        kind="market1501|dukemtmc|deepfashion",
    conda:
        "../../environment.yml"
    params:
        folder=lambda wildcards, output: Path(output[0]).parent,
        code=code_fingerprint("imitate"),
    message:
        "An archive in the layout of {wildcards.kind}, filled with synthetic people"
    shell:
        "python -m potgan imitate {wildcards.kind} --out {params.folder} 2>&1 | tee {log}"


# A checkpoint, because the key points need OpenPifPaf only where the tables cannot be had.
checkpoint published:
    input:
        decided=stamp("published"),
    output:
        f"{RESULTS}/{{dataset}}/published/published.json",
    log:
        f"{LOGS}/published/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/published/{{dataset}}.tsv"
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
    message:
        "Published tables and lists of {wildcards.dataset}"
    shell:
        "python -m potgan published --config {params.configuration} --dataset {wildcards.dataset} 2>&1 | tee {log}"


rule images:
    input:
        decided=stamp("images"),
        source=source_files,
        published=published_lists,
    output:
        f"{RESULTS}/{{dataset}}/images/images.csv",
        f"{RESULTS}/{{dataset}}/images/images.json",
    log:
        f"{LOGS}/images/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/images/{{dataset}}.tsv"
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
    message:
        "Images of {wildcards.dataset}"
    shell:
        "python -m potgan images --config {params.configuration} --dataset {wildcards.dataset} 2>&1 | tee {log}"


# OpenPifPaf lives in an environment of its own, built from its lock (workflow/envs/openpifpaf); nothing else imports it.
# Building compiles its decoder: some minutes, a C++ compiler and Python 3.10 or 3.11.
rule openpifpaf_environment:
    output:
        OPENPIFPAF,
    log:
        "results/openpifpaf-environment.log",
    conda:
        "../../environment.yml"
    params:
        script=str(OPENPIFPAF_RECIPE / "build.sh"),
        folder=lambda wildcards, output: Path(output[0]).parent,
        lock=sha256_of(OPENPIFPAF_RECIPE / "requirements.lock"),
    message:
        "Building the environment of OpenPifPaf in {params.folder}"
    shell:
        "bash {params.script} {params.folder} 2>&1 | tee {log}"


rule openpifpaf_synthetic:
    input:
        environment=OPENPIFPAF,
    output:
        SYNTHETIC_CHECKPOINT,
        str(Path(SYNTHETIC_CHECKPOINT).with_suffix(".json")),
    log:
        "results/openpifpaf-synthetic.log",
    conda:
        "../../environment.yml"
    threads: 2
    params:
        script=str(OPENPIFPAF_RECIPE / "train_synthetic.py"),
        folder=lambda wildcards, output: Path(output[0]).parent,
        environment=lambda wildcards, input: Path(input.environment).parent,
    message:
        "Training OpenPifPaf on synthetic people"
    shell:
        "python {params.script} --out {params.folder} --environment {params.environment} 2>&1 | tee {log}"


rule keypoints:
    input:
        decided=stamp("keypoints"),
        images=rules.images.output,
        published=published_files,
        tables=keypoint_tables,
        detector=detector,
    output:
        f"{RESULTS}/{{dataset}}/keypoints/keypoints.csv",
        f"{RESULTS}/{{dataset}}/keypoints/keypoints.json",
    log:
        f"{LOGS}/keypoints/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/keypoints/{{dataset}}.tsv"
    conda:
        "../../environment.yml"
    threads: detection_threads
    params:
        configuration=CONFIGURATION,
    message:
        "Key points of {wildcards.dataset}"
    shell:
        "python -m potgan keypoints --config {params.configuration} --dataset {wildcards.dataset} 2>&1 | tee {log}"


# For methods that read masks from files: trainings of this project draw their own.
rule masks:
    input:
        decided=stamp("masks"),
        images=rules.images.output,
        keypoints=rules.keypoints.output,
    output:
        f"{RESULTS}/{{dataset}}/masks/masks.json",
        f"{RESULTS}/{{dataset}}/masks/masks.npz",
    log:
        f"{LOGS}/masks/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/masks/{{dataset}}.tsv"
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
    message:
        "Pose masks of {wildcards.dataset}"
    shell:
        "python -m potgan masks --config {params.configuration} --dataset {wildcards.dataset} 2>&1 | tee {log}"


rule pairs:
    input:
        decided=stamp("pairs"),
        keypoints=rules.keypoints.output,
        published=published_files,
        lists=pair_lists,
    output:
        f"{RESULTS}/{{dataset}}/pairs/pairs.json",
        f"{RESULTS}/{{dataset}}/pairs/pairs-train.csv",
        f"{RESULTS}/{{dataset}}/pairs/pairs-validation.csv",
        f"{RESULTS}/{{dataset}}/pairs/pairs-test.csv",
    log:
        f"{LOGS}/pairs/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/pairs/{{dataset}}.tsv"
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
    message:
        "Train, validation and test pairs of {wildcards.dataset}"
    shell:
        "python -m potgan pairs --config {params.configuration} --dataset {wildcards.dataset} 2>&1 | tee {log}"


# Only where a model reads it. The folder of label images is not tracked here: its content is in the stamp's judgement.
rule parsing:
    input:
        decided=stamp("parsing"),
        images=rules.images.output,
        pairs=rules.pairs.output,
    output:
        f"{RESULTS}/{{dataset}}/parsing/parsing.json",
        f"{RESULTS}/{{dataset}}/parsing/parsing.zip",
    log:
        f"{LOGS}/parsing/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/parsing/{{dataset}}.tsv"
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
    message:
        "The class of each pixel of the images of {wildcards.dataset}"
    shell:
        "python -m potgan parsing --config {params.configuration} --dataset {wildcards.dataset} 2>&1 | tee {log}"
