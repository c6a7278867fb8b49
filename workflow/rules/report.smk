rule tabulate:
    input:
        decided=stamp("tabulate"),
        scores=made("evaluate"),
    output:
        [in_the_report(path) for path in REPORT],
    log:
        f"{LOGS}/tabulate.log",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
    message:
        f"TABLE I-IV and the page of benchmark {BENCHMARK.benchmark}"
    shell:
        "python -m potgan tabulate --config {params.configuration} 2>&1 | tee {log}"
