# Sourced after tap.sh: a Slurm of one node in $T, of Debian's packages, with daemons of its own. cluster_start, cluster_stop;
# $no_slurm says why there is none. Needs root (slurmd wants to be other users).
no_slurm=
for program in slurmctld slurmd munged sbatch srun scontrol; do
    PATH=$PATH:/usr/sbin command -v $program >/dev/null || no_slurm="no $program here (Debian: slurm-wlm, munge)"
done
[ "$(id -u)" = 0 ] || no_slurm="only root can start Slurm's daemons"
PATH=$PATH:/usr/sbin

cluster_start() {
    cluster=$T/slurm
    mkdir -p "$cluster/state" "$cluster/spool" "$cluster/munge"
    chmod 755 "$T" "$cluster"
    chmod 700 "$cluster/munge"
    head -c 64 /dev/urandom >"$cluster/munge/key"
    chmod 400 "$cluster/munge/key"
    munged --force --key-file "$cluster/munge/key" --socket "$cluster/munge.socket" --pid-file "$cluster/munge/pid" --log-file "$cluster/munge/log" --seed-file "$cluster/munge/seed" 2>"$cluster/munged.err"
    port=$((20000 + $$ % 20000))
    node=$(hostname -s)
    cat >"$cluster/slurm.conf" <<END
ClusterName=lmpipe
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$cluster/munge.socket,cred_expire=3
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/slurmd.pid
SlurmctldLogFile=$cluster/slurmctld.log
SlurmdLogFile=$cluster/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
MpiDefault=none
NodeName=$node NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
END
    SLURM_CONF=$cluster/slurm.conf
    export SLURM_CONF
    slurmctld -c 2>"$cluster/ctld.err"
    slurmd 2>"$cluster/d.err"
    for i in $(seq 100); do
        sinfo -h -o %T 2>/dev/null | grep -q idle && return 0
        sleep 0.2
    done
    echo "the node does not come up: $(sinfo 2>&1)" >&2
    return 1
}

cluster_stop() {
    scancel --quiet --state=RUNNING --user=root 2>/dev/null
    scontrol shutdown >/dev/null 2>&1
    for file in slurmd.pid slurmctld.pid munge/pid; do
        pid=$(cat "$cluster/$file" 2>/dev/null) && kill "$pid" 2>/dev/null
    done
    sleep 1
}
