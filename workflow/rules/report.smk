rule tabulate:
    input:
        scores=score_files(),
        # Labels, descriptions and the list of differences are printed: a changed word changes the page.
        configuration=CONFIGURATION,
    output:
        REPORT,
    log:
        f"{LOGS}/tabulate.log",
    conda:
        "../../environment.yml"
    params:
        code=code_fingerprint("tabulate"),
    message:
        f"TABLE I-IV and the page of benchmark {BENCHMARK.benchmark}"
    shell:
        "python -m potgan tabulate --config {input.configuration} 2>&1 | tee {log}"
