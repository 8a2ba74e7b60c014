# Sourced by run and round after tap.sh and ranks.sh: the jobs in which ranks fail, small and short; they save and evaluate all the time.
# $W holds their data, and whole-N the undisturbed run of job N.
jobs="pretrain --dp 4
pretrain --tp 2 --dp 2
pretrain --pp 2 --tp 2
pretrain --dp 3 --shard 1
sft --dp 2 --shard 2
pretrain --cp 2 --dp 2 --shard 2
pretrain --dp 4 --shard 3
dpo --tp 2
pretrain --pp 2 --dp 2 --shard 1
rmtrain --dp 3 --shard 3"
[ "${GRIDS-}" ] && jobs=$(printf '%s\n' "$GRIDS" | tr ';' '\n' | sed 's/^ *-/pretrain -/')
job_count=$(printf '%s\n' "$jobs" | wc -l)

# pick_job N: its $tool, $grid, number of $ranks, and $command but for -o
pick_job() {
    line=$(printf '%s\n' "$jobs" | sed -n "$(($1 + 1))p")
    tool=${line%% *} grid=${line#* } ranks=1 last=
    for word in $grid; do
        case $last in --tp | --cp | --pp | --dp) ranks=$((ranks * word)) ;; esac
        last=$word
    done
    common="-q --device cpu -j 1 --lr 3e-4 --save-every 4 --peak-flops 1e12"
    post="$tool $common --model $W/base --batch-size 8 --max-length 64 --rows 256"
    case $tool in
    pretrain) command="$tool $common --model-config $W/two.json --data $W/s --seq-len 32 --batch-tokens 256 --micro-batch 2 --steps 400 --val $W/s --eval-every 25 --eval-tokens 1000 --seed 3 $grid" ;;
    sft) command="$post --epochs 40 --val $W/chat.jsonl --eval-every 25 $grid $W/chat.jsonl" ;;
    *) command="$post --epochs 40 $grid $W/pairs.jsonl" ;;
    esac
}

jobs_data() {
    T=$W ranks_chats 60
    pretrain -q --device cpu --model-config "$W/two.json" --tokenizer "$W/v" --data "$W/s" --seq-len 64 --batch-tokens 256 --lr 3e-3 --steps 5 -o "$W/base"
}

# A job in a session of its own, in which all that is left of it can be found and ended, and never for longer than $limit seconds. Its
# number is $job, what it says in $D/out. launch LAUNCHER OPTIONS...: of the picked job
limit=150
LMPIPE_MEET_TIMEOUT=20 # to come together, where a rank is stopped before it has
export LMPIPE_MEET_TIMEOUT
launch() {
    launcher=$1
    shift
    rm -f "$D"/status.* "$D"/process.* "$D/meet"
    # Each rank leaves its process's number.
    rank='echo $$ >"$D/process.${LMPIPE_RANK:-${OMPI_COMM_WORLD_RANK:-$PMI_RANK}}"; exec "$@"'
    export D rank
    # shellcheck disable=SC2086
    case $launcher in
    mpirun) setsid timeout -k 5 $limit $mpirun -n $ranks sh -c "$rank" rank $command "$@" >"$D/out" 2>&1 & ;;
    meet) setsid timeout -k 5 $limit sh -c 'n=$1; shift
        for r in $(seq 0 $((n - 1))); do
            (LMPIPE_MEET=$D/meet LMPIPE_RANKS=$n LMPIPE_RANK=$r sh -c "$rank" rank "$@"; echo $? >"$D/status.$r") &
        done
        wait
        for s in "$D"/status.*; do s=$(cat "$s"); [ "$s" = 0 ] || exit "$s"; done' meet $ranks $command "$@" >"$D/out" 2>&1 & ;;
    esac
    job=$!
}
# Whatever is left of the job.
sweep() {
    left=$(ps -o pid= -s "${job:-0}")
    # shellcheck disable=SC2086
    [ -z "$left" ] || kill -KILL $left 2>/dev/null
    return 0
}
# Waits for the job. Its status in $status.
ended() {
    wait "$job"
    status=$?
    sweep
}
