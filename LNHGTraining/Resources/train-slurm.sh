#!/bin/bash
# Example for Slurm: trains a branch on two nodes with four GPUs each. Adapt the paths, then: sbatch train-slurm.sh
#SBATCH --job-name=lnhg-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@300
# Five minutes before the time is over Slurm sends SIGTERM: the run writes a checkpoint, and the job queues itself again.
# torchrun restarts all processes when one of them or a node fails. --resume: every start goes on from the last
# checkpoint, if there is one. A step is the mean over `parts` batches of `batch` patches; results depend on these two,
# not on the number of processes, which must not be larger than `parts`.
repository="$HOME/SlicerLNHG"
config="$repository/LNHGTraining/Resources/segmenter-paper.toml"
data="$HOME/lnhg-data"
out="$HOME/runs/segmenter-paper"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun "$repository/.venv/bin/torchrun" --nnodes 1:2 --nproc-per-node 4 --max-restarts 10 \
  --rdzv-backend c10d --rdzv-endpoint "$head:29500" --rdzv-id "$SLURM_JOB_ID" \
  -m LNHGTrainingLib train segmenter --config "$config" --data "$data" --device cuda --resume \
  --set parts=8 --set batch=2 --set workers=4 "$out" &
training=$!
trap 'out_of_time=yes; kill -TERM "$training"' TERM
wait "$training"
status=$?
if test -n "$out_of_time"; then
  wait "$training"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
