#!/usr/bin/env bash
# slurm_cluster.sh start|stop FOLDER: a Slurm cluster of one node, this machine, for tests. As root, with Debian's packages
# slurm-wlm and munge, without systemd. Everything is in FOLDER (configuration, key, sockets, state, logs) and on free
# ports of the loopback, so nothing else on the machine is touched. To talk to it:
#   export SLURM_CONF=FOLDER/slurm.conf PATH=FOLDER/bin:$PATH
# (FOLDER/bin/srun sets SLURM_CONF again: Snakemake's executor takes it away from the srun that it calls inside a job.)
set -euo pipefail
action=$1 folder=$(realpath -m "$2")
export PATH=$PATH:/usr/sbin SLURM_CONF=$folder/slurm.conf

start() {
    mkdir -p "$folder"/{state,spool,log,bin}
    chmod 700 "$folder"
    (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
    munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" --pid-file="$folder/munged.pid" \
        --seed-file="$folder/munge.seed" --log-file="$folder/log/munged.log"
    read -r controller node < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))')
    # The node as slurmd finds it, with a stand-in for a GPU.
    cat >"$SLURM_CONF" <<CONF
ClusterName=potgan-test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$controller
SlurmdPort=$node
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
ReturnToService=2
MinJobAge=3600
MpiDefault=none
GresTypes=gpu
$(slurmd -C | grep '^NodeName=') NodeAddr=127.0.0.1 Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    echo "Name=gpu File=/dev/null" >"$folder/gres.conf"
    printf '#!/bin/sh\nSLURM_CONF=%q exec %q "$@"\n' "$SLURM_CONF" "$(command -v srun)" >"$folder/bin/srun"
    chmod +x "$folder/bin/srun"
    slurmctld
    slurmd
    for _ in $(seq 60); do
        if sinfo --noheader --format=%T 2>/dev/null | grep -qx idle; then return; fi
        sleep 0.5
    done
    echo "slurm_cluster.sh: the node is not ready after 30 s:" >&2
    tail -n 20 "$folder"/log/*.log >&2
    stop
    return 1
}

stop() {
    local pid name
    scancel --user="$(id -un)" 2>/dev/null || true
    for _ in $(seq 40); do
        [ -n "$(squeue --noheader 2>/dev/null)" ] || break
        sleep 0.25
    done
    for name in slurmd slurmctld munged; do
        pid=$(cat "$folder/$name.pid" 2>/dev/null) || continue
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 40); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.25
        done
        kill -9 "$pid" 2>/dev/null || true
    done
}

case $action in
start) start ;;
stop) stop ;;
*) echo "usage: slurm_cluster.sh start|stop FOLDER" >&2 && exit 2 ;;
esac
