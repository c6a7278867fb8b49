rule tabulate:
    input:
        scores=score_files(),
    output:
        REPORT,
    log:
        f"{LOGS}/tabulate.log",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
        # Labels, descriptions and the list of differences are printed: a changed word changes the page.
        settings=json.dumps(as_tree(BENCHMARK)),
        code=code_fingerprint("tabulate"),
    message:
        f"TABLE I-IV and the page of benchmark {BENCHMARK.benchmark}"
    shell:
        "python -m potgan tabulate --config {params.configuration} 2>&1 | tee {log}"
