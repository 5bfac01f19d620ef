#!/usr/bin/env bash
# Starts Slurm for one machine, of the Debian packages slurmctld, slurmd, slurm-client and munge, as root and on loopback
# only: slurm_up.sh DIR PORT; stops it: slurm_up.sh DIR down. Jobs of the partition high preempt those of low, which get
# SIGTERM and five seconds, and are queued again.
set -euo pipefail
D=$1
if [ "$2" = down ]; then
    for name in slurmd slurmctld munged; do
        [ -f "$D/$name.pid" ] || continue
        pid=$(cat "$D/$name.pid")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null || true  # slurmd would wait for jobs that nobody ends any more
    done
    exit 0
fi
PORT=$2
HOST=$(hostname -s)
mkdir -p "$D"/{state,spool,log,munge}
chmod 755 "$D"
(umask 077 && head -c 128 /dev/urandom > "$D/munge/key")
chmod 700 "$D/munge"
munged --force --key-file="$D/munge/key" --socket="$D/munge.sock" --pid-file="$D/munged.pid" \
    --log-file="$D/munge/log" --seed-file="$D/munge/seed"
cat > "$D/slurm.conf" <<CONF
ClusterName=tests
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=6,socket=$D/munge.sock
CryptoType=crypto/munge
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool
SlurmctldPidFile=$D/slurmctld.pid
SlurmdPidFile=$D/slurmd.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd.log
PlugStackConfig=/dev/null
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
BatchStartTimeout=1
MessageTimeout=5
SlurmctldTimeout=30
SlurmdTimeout=30
KillWait=5
MinJobAge=300
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE State=UP PreemptMode=REQUEUE GraceTime=5
PartitionName=high Nodes=ALL Default=NO PriorityTier=10 MaxTime=INFINITE State=UP PreemptMode=OFF
CONF
export SLURM_CONF="$D/slurm.conf"
slurmctld
slurmd
for _ in $(seq 100); do sinfo -h -o %T 2>/dev/null | grep -q idle && exit 0; sleep 0.1; done
echo "Slurm did not start; see $D/log" >&2
exit 1
