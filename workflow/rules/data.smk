rule images:
    input:
        source=source_files,
    output:
        f"{RESULTS}/{{dataset}}/images/images.csv",
        f"{RESULTS}/{{dataset}}/images/images.json",
    log:
        f"{LOGS}/images/{{dataset}}.log",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
        settings=dataset_settings,
        code=code_fingerprint("images"),
    message:
        "Images of {wildcards.dataset}"
    shell:
        "python -m potgan images --config {params.configuration} --dataset {wildcards.dataset} 2>&1 | tee {log}"


rule keypoints:
    input:
        images=rules.images.output,
        tables=keypoint_tables,
    output:
        f"{RESULTS}/{{dataset}}/keypoints/keypoints.csv",
        f"{RESULTS}/{{dataset}}/keypoints/keypoints.json",
    log:
        f"{LOGS}/keypoints/{{dataset}}.log",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
        settings=dataset_settings,
        code=code_fingerprint("keypoints"),
    message:
        "Key points of {wildcards.dataset}"
    shell:
        "python -m potgan keypoints --config {params.configuration} --dataset {wildcards.dataset} 2>&1 | tee {log}"


rule pairs:
    input:
        keypoints=rules.keypoints.output,
        lists=pair_lists,
    output:
        f"{RESULTS}/{{dataset}}/pairs/pairs.json",
        f"{RESULTS}/{{dataset}}/pairs/pairs-train.csv",
        f"{RESULTS}/{{dataset}}/pairs/pairs-validation.csv",
        f"{RESULTS}/{{dataset}}/pairs/pairs-test.csv",
    log:
        f"{LOGS}/pairs/{{dataset}}.log",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
        settings=dataset_settings,
        code=code_fingerprint("pairs"),
    message:
        "Train, validation and test pairs of {wildcards.dataset}"
    shell:
        "python -m potgan pairs --config {params.configuration} --dataset {wildcards.dataset} 2>&1 | tee {log}"
