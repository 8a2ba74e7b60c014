# sft, dpo and rmtrain on grids of ranks give the losses, norms, metrics and held-out scores of one process over 20 steps.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
ranks_answers 40 "$T/chat.jsonl" "$T/pairs.jsonl" "$T/ranks.jsonl"
Q="-q --device cpu --epochs 4 --batch-size 9 --max-length 96 --rows 192 --eval-every 6 --save-every 8 --keep 0 --lr 3e-5 --grad-clip 0.5"
M=tests/data/posttrain/model
# A model whose layers, heads, MLP and vocabulary do not divide evenly, with tied embeddings.
ranks_config 301 24 75 5 6 3 6 256 true 299 >"$T/odd.json"
echo '{"id":"a","text":"one and two make three, and three and four make seven"}' | tokenize -q --tokenizer $M -o "$T/shard" -
pretrain -q --device cpu --model-config "$T/odd.json" --tokenizer $M --data "$T/shard" --seq-len 8 --batch-tokens 8 --steps 1 --lr 0 --min-lr 0 --save-every 0 -o "$T/odd"

# The largest relative difference of the numbers of two logs that do not tell the time, of those under 0.01 against that; other keys: 1.
difference() {
    awk -v RS='[{},\n]+' -F: '
        FNR == 1 { file++; n = 0 }
        /^"/ && $1 !~ /tokens_per_second|mfu|rank_seconds|final/ {
            n++
            if (file == 1) { name[n] = $1; value[n] = $2; count = n; next }
            d = $2 - value[n]; d = d < 0 ? -d : d; size = value[n] < 0 ? -value[n] : value[n]
            d /= size > 0.01 ? size : 0.01
            if (name[n] != $1 || ($1 ~ /step|"tokens"/ && d)) d = 1
            if (d > most) most = d
        }
        END { print (file == 2 && n == count && n > 15 ? most + 0 : 1) }' "$1" "$2"
}
# A weight of bf16 takes its other neighbour where ranks sum in another order: some kernels' runs are then 1e-3 apart.
near() {
    d=$(difference "$2/log.jsonl" "$3/log.jsonl" 2>/dev/null)
    case $command in *"--dtype bf16"*) most=5e-3 ;; *) most=1e-4 ;; esac
    awk -v d="${d:-1}" -v most=$most 'BEGIN { exit !(d <= most) }'
    result $? "$1 (largest relative difference $d)"
}
one() { # one NAME COMMAND...: by one process, which the grids below are compared with
    name=$1
    shift
    command="$*"
    $command --threads 1 -o "$T/$name"
}
grid() { # grid OPTION...
    rm -rf "$T/grid"
    $command "$@" -o "$T/grid" || echo "# $name $* fails" >&2
    near "$name $*" "$T/$name" "$T/grid"
}
grids() { # grids NAME COMMAND...
    one "$@"
    grid --tp 2
    grid --cp 2
    grid --pp 2
    grid --dp 2
    grid --dp 5
    grid --dp 2 --shard 0
    grid --dp 2 --shard 2
    grid --dp 3 --shard 3
    grid --tp 2 --cp 2
    grid --tp 2 --dp 2
    grid --pp 2 --dp 2 --shard 2
    grid --cp 2 --pp 2 --recompute layer
    grid --cp 2 --dp 2 --shard 3
    grid --tp 2 --cp 2 --pp 2 --dp 2
}
odd_grids() {
    one "$@"
    grid --tp 2
    grid --cp 3
    grid --pp 5
    grid --pp 2 --virtual-stages 2
    grid --pp 2 --virtual-stages 3 --ends-fewer 1
    grid --tp 2 --cp 2 --pp 3 --ends-fewer 1
}
move() { # move OPTION...: goes on from the first checkpoint of what the last grid has left
    rm -rf "$T/move"
    cp -a "$T/grid" "$T/move"
    rm -rf "$T/move/final" "$T/move/done" "$T/move/average" "$T/move"/step-*16 "$T/move"/step-*20
    ln -sfn step-00000008 "$T/move/latest"
    $command "$@" --stats "$T/stats" -o "$T/move"
    like "$name $*: it goes on with another grid's checkpoint" "$(cat "$T/stats")" '"steps_resumed": ?8[^0-9]'
    near "with the numbers of one process" "$T/$name" "$T/move"
}
grids sft sft --model $M --val "$T/chat.jsonl" $Q "$T/chat.jsonl"
move --dp 1
move --cp 2 --dp 2 --shard 2
grids dpo dpo --model $M --val "$T/pairs.jsonl" $Q "$T/pairs.jsonl"
move --pp 2
move --tp 2 --dp 2
grids rmtrain rmtrain --model $M --val "$T/ranks.jsonl" $Q "$T/ranks.jsonl"
move --cp 2
move --dp 3 --shard 3
odd_grids odd-sft sft --model "$T/odd" --val "$T/chat.jsonl" $Q --neftune 5 "$T/chat.jsonl"
odd_grids odd-dpo dpo --model "$T/odd" --val "$T/pairs.jsonl" $Q "$T/pairs.jsonl"
odd_grids odd-rmtrain rmtrain --model "$T/odd" --val "$T/ranks.jsonl" $Q "$T/ranks.jsonl"
one dpo-reference dpo --model $M --reference tests/data/posttrain/reference $Q "$T/pairs.jsonl"
grid --tp 2 --dp 2
grid --cp 2 --pp 2 --shard 0
grid --dp 2 --shard 3
# Adapters: dropout and noise draw for a record and a column of the whole, whoever has them.
# apart FOLDER FOLDER [FILE]: the largest relative difference of a tensor, ‖a−b‖/‖b‖
apart() {
    perl -MJSON::PP -e '
        my $file = @ARGV > 2 ? pop @ARGV : "adapter_model.safetensors";
        sub tensors {
            open my $f, "<:raw", "$_[0]/$file" or die; local $/; my $all = <$f>;
            my $n = unpack "Q<", $all; my $head = decode_json(substr $all, 8, $n); my %t;
            for (grep { $_ ne "__metadata__" } keys %$head) {
                my ($begin, $end) = @{$head->{$_}{data_offsets}};
                $t{$_} = [unpack "f<*", substr $all, 8 + $n + $begin, $end - $begin];
            }
            return \%t;
        }
        my ($x, $y) = map { tensors($_) } @ARGV; my $most = keys %$x == keys %$y && keys %$x ? 0 : 1;
        for my $k (keys %$x) {
            my ($d, $s) = (0, 0); my ($p, $q) = ($x->{$k}, $y->{$k});
            $most = 1, next if !$q || @$p != @$q;
            $d += ($p->[$_] - $q->[$_]) ** 2, $s += $q->[$_] ** 2 for 0 .. $#$p;
            $d = $s > 0 ? sqrt($d / $s) : $d > 0; $most = $d if $d > $most;
        }
        print $most;' "$@"
}
adapters() { # adapters NAME COMMAND...
    one "$@"
    for g in "--tp 2" "--tp 4" "--cp 2" "--pp 2" "--dp 2 --shard 2" "--dp 2 --shard 3" "--tp 2 --pp 2 --dp 2" "--tp 2 --cp 2 --pp 2 --dp 2"; do
        grid $g
        d=$(apart "$T/grid/final" "$T/$name/final")
        awk -v d="$d" 'BEGIN { exit !(d != "" && d <= 1e-3) }' && cmp -s "$T/$name/final/adapter_config.json" "$T/grid/final/adapter_config.json"
        result $? "$name $g: and its adapter (largest relative difference of a tensor $d)"
    done
}
L="--lora 4 --lora-targets all-linear --lora-dropout 0.2 --lr 3e-4"
adapters lora-sft sft --model $M --val "$T/chat.jsonl" $Q $L --neftune 5 "$T/chat.jsonl"
move --tp 2 --dp 2
adapters lora-dpo dpo --model $M --val "$T/pairs.jsonl" $Q $L "$T/pairs.jsonl"
adapters lora-rmtrain rmtrain --model $M --val "$T/ranks.jsonl" $Q $L "$T/ranks.jsonl"
one lora-odd sft --model "$T/odd" $Q $L "$T/chat.jsonl"
grid --tp 2
grid --tp 3 --pp 2 --virtual-stages 3 --ends-fewer 1
one lora-bf16 sft --model $M $Q $L --dtype bf16 "$T/chat.jsonl"
grid --dp 2 --shard 3
one lora-merge sft --model $M $Q $L --merge "$T/chat.jsonl"
grid --dp 2 --shard 3
d=$(apart "$T/grid/final" "$T/lora-merge/final" model.safetensors)
awk -v d="$d" 'BEGIN { exit !(d != "" && d <= 1e-5) }'
result $? "the merged weights are one rank's: apart by $d"
move --tp 2 --pp 2
ok "and merges" generate -q --device cpu --model "$T/move" --max-tokens 2 --prompt x
cuda=$BIN/../lib/liblmpipe-emulated.so nccl=$BIN/../lib/liblmpipe-nccl-emulated.so
if [ -e "$cuda" ] && [ -e "$nccl" ]; then
    one lora-cuda sft --model $M -q --device cpu --epochs 1 --batch-size 20 --max-length 96 --rows 192 $L "$T/chat.jsonl"
    LMPIPE_CUDA=$cuda LMPIPE_NCCL=$nccl
    export LMPIPE_CUDA LMPIPE_NCCL
    grid --device cuda --tp 2 --pp 2
    one dpo-cuda dpo --model $M -q --epochs 1 --batch-size 20 --max-length 96 --rows 192 --lr 3e-5 --device cpu "$T/pairs.jsonl"
    command="dpo --model $M -q --epochs 1 --batch-size 20 --max-length 96 --rows 192 --lr 3e-5 --device cuda $T/pairs.jsonl"
    grid --cp 2 --pp 2
    unset LMPIPE_CUDA LMPIPE_NCCL
else
    skip "--device cuda" "the emulation is not built"
fi
# The best model is kept and taken at the end; what one grid saved another goes on with.
one patience sft --model $M --val "$T/chat.jsonl" $Q --patience 2 --average-every 2 "$T/chat.jsonl"
grid --dp 2
grid --pp 2 --cp 2
# The reference's sums are read where they are this grid's.
F="dpo --model $M -q --device cpu --epochs 1 --max-length 96 --rows 192 --lr 3e-5 --save-every 0 --reference-file $T/sums.json $T/pairs.jsonl"
one sums $F
grid --pp 2 --dp 2
key=$(grep -o '"key":"[^"]*"' "$T/sums.json")
$F --pp 2 --dp 2 -o "$T/sums2"
is "the same grid keeps the file" "$(grep -o '"key":"[^"]*"' "$T/sums.json")" "$key"
printf '{%s,"pairs":[%s]}' "$key" "$(yes 0 | head -n 80 | paste -sd, -)" >"$T/sums.json"
grid_reads() { rm -rf "$T/grid"; $F "$@" -o "$T/grid"; difference "$T/sums/log.jsonl" "$T/grid/log.jsonl"; }
result "$(awk -v d="$(grid_reads --pp 2 --dp 2)" 'BEGIN { print (d < 0.1) }')" "and takes its numbers from there"
result "$(awk -v d="$(grid_reads --tp 2)" 'BEGIN { print (d > 1e-4) }')" "another grid makes its own"
one stdin sft --model $M $Q "$T/chat.jsonl"
command="sft --model $M $Q"
grid --dp 2 - <"$T/chat.jsonl"
# Before anything starts: the memory of a rank, and a grid.
memory() { sed -n 's/.*"rank_peak_bytes": *\([0-9]*\).*/\1/p' "$T/stats"; }
B="dpo --model $M --max-length 96 --rows 9600 --batch-size 200 --dry-run --stats $T/stats"
for i in $(seq 10); do cat "$T/pairs.jsonl"; done >"$T/many.jsonl"
$B "$T/many.jsonl" >"$T/dry"
like "--dry-run tells steps" "$(cat "$T/dry")" '^steps  *2$'
whole=$(memory)
$B --cp 2 --pp 2 "$T/many.jsonl" >"$T/dry"
like "and the bubble of a pipeline" "$(cat "$T/dry")" '^bubble.* [0-9.]+ %$'
result "$([ "$(memory)" -lt "$whole" ]; echo $?)" "of which a rank takes less"
# Adapters spare gradients and moments, but read inputs again that a full model's backward pass writes over: in long passes of so small a model that is more.
$B --rows 96 "$T/pairs.jsonl" >"$T/dry"
whole=$(memory)
$B --rows 96 --lora 4 "$T/pairs.jsonl" >"$T/dry"
result "$([ "$(memory)" -lt "$whole" ]; echo $?)" "and less where adapters alone are trained"
fails 1 "2 layers leave none" "--dry-run of what cannot be" $B --pp 3 "$T/pairs.jsonl"
command="rmtrain --model $M --val $T/ranks.jsonl --grid auto --ranks 4 $Q $T/ranks.jsonl"
name=rmtrain
grid
is "--grid auto takes all ranks" "$(sed -n '1s/.*"rank_seconds":\[\([^]]*\)\].*/\1/p' "$T/grid/log.jsonl" | tr ',' '\n' | wc -l)" 4
fails 1 "2 layers leave none for stage 2 of 3" "more stages than layers" sft --model $M $Q --pp 3 -o "$T/x" "$T/chat.jsonl"
fails 1 "there is no pipeline" "virtual stages of no pipeline" sft --model $M $Q --virtual-stages 2 -o "$T/x" "$T/chat.jsonl"
fails 1 "take --shard 1" "gradients cut among ranks whose widths differ" sft --model "$T/odd" $Q --tp 2 --dp 2 --shard 3 -o "$T/x" "$T/chat.jsonl"
if [ "$no_mpi" ]; then
    skip "ranks as processes" "$no_mpi"
else
    for t in dpo rmtrain; do
        data=$T/$([ $t = dpo ] && echo pairs || echo ranks).jsonl
        ok "mpirun -n 4 $t --cp 2 --pp 2" $mpirun -n 4 $t --model $M --val "$data" $Q --cp 2 --pp 2 -o "$T/mpi-$t" "$data"
        near "has the numbers of one process" "$T/$t" "$T/mpi-$t"
    done
    fails 1 "several processes cannot read standard input" "processes and standard input" sh -c "$mpirun -n 2 sft --model $M $Q -o '$T/stdin2' <'$T/chat.jsonl'"
fi
done_testing
