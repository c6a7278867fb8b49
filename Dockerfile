# The locked environment and the workflow: see "In a container" in README.md. potgan.def is the same for Apptainer, and
# tests/test_publication.py holds the two in step.
FROM python:3.11-slim

# git: DVC and the report's commit; make: the set-up below.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/potgan
COPY Makefile Snakefile pyproject.toml requirements.lock environment.yml README.md LICENSE ./
COPY potgan potgan/
COPY config config/
COPY benchmarks benchmarks/
COPY profiles profiles/
COPY workflow/Snakefile workflow/stage.sh workflow/container.sh workflow/
COPY workflow/rules workflow/rules/
COPY workflow/report workflow/report/
COPY workflow/envs/openpifpaf/* workflow/envs/openpifpaf/
COPY workflow/envs/slurm/* workflow/envs/slurm/

# The Makefile asks for byte code: without it every start of snakemake costs seconds.
RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 make setup \
    && .venv/bin/python -m compileall -q potgan

RUN useradd --create-home potgan && install --directory --owner=potgan --group=potgan /benchmark
USER potgan
WORKDIR /benchmark
ENTRYPOINT ["/opt/potgan/workflow/container.sh"]
CMD ["--cores", "all", "--", "all"]
