# Random models and grids: pretrain --dry-run either tells a plan or one reason why there is no such run, and the run then does just that: it
# trains and sends the bytes that were told, or is refused too. SEED=N CASES=N try others.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
ranks_data
awk -v seed="${SEED:-1}" -v cases="${CASES:-60}" '
function pick(list,    n, a) { n = split(list, a, " "); return a[1 + int(rand() * n)] }
function maybe(option, list) { return rand() < 0.5 ? "" : " --" option " " pick(list) }
BEGIN {
    srand(seed)
    for (i = 0; i < cases; i++) {
        heads = pick("1 2 3 4 6 8")
        length_ = pick("16 24 48 64")
        print pick("16 24 33"), pick("24 40 64 75"), pick("1 2 3 5 6 8"), heads, pick("1 2 " heads " " heads), pick("2 4 6"), pick("320 323 330"), pick("true false"), \
            "--seq-len " length_ " --batch-tokens " length_ * pick("1 2 3 5 8 12") maybe("tp", "1 2 2 3 4") maybe("cp", "1 2 3") maybe("pp", "1 2 2 3 4") maybe("dp", "1 2 3") \
            maybe("virtual-stages", "1 1 2 3") maybe("ends-fewer", "0 0 1") maybe("shard", "0 1 2 3") maybe("micro-batch", "1 2 3") maybe("recompute", "none norms layer") maybe("dtype", "f32 bf16")
    }
}' >"$T/cases"
sent() { tr ',{}' '\n\n\n' <"$1" | grep '^"sent' | grep -v host_gather | sort; }
# What scalefit plan tells of the run that was made, beside the table of --dry-run: memory by part, MB.
megabytes() { sed -n 's/^\(weights\|gradients\|optimiser states\|activations\|memory in all\|all ranks, threads of a process\) *\([0-9.]*\) MB$/\2/p' "$T/table"; }
same_plan() {
    scalefit plan --json --model-config "$T/run" >"$T/plan" 2>&1 || return 1
    sed -n 's/^ *"\(weights\|gradients\|optimizer\|activations\|memory\|threads\)_bytes": \([0-9.e+]*\),*$/\2/p' "$T/plan" | awk '{ printf "%.1f\n", $1 / 1e6 }' >"$T/parts"
    [ "$(megabytes)" = "$(cat "$T/parts")" ]
}
wrong= plans=0 refused=0 apart= planned=
while read -r hidden feed layers heads kv head vocabulary tied options; do
    printf '{"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":%s,"hidden_size":%s,"intermediate_size":%s,"num_hidden_layers":%s,"num_attention_heads":%s,
        "num_key_value_heads":%s,"head_dim":%s,"max_position_embeddings":64,"rms_norm_eps":1e-5,"rope_theta":10000,"initializer_range":0.05,"tie_word_embeddings":%s,
        "hidden_act":"silu","bos_token_id":null,"eos_token_id":319,"torch_dtype":"float32"}' "$vocabulary" "$hidden" "$feed" "$layers" "$heads" "$kv" "$head" "$tied" >"$T/m.json"
    P="pretrain -q --device cpu --model-config $T/m.json $options --steps 1 --save-every 0 --lr 1e-4 --peak-flops 1e11"
    what="$hidden/$feed/$layers/$heads/$kv/$head/$vocabulary/$tied $options"
    $P --dry-run --stats "$T/said" >"$T/table" 2>"$T/reason"
    told=$?
    rm -rf "$T/run"
    $P --data "$T/s" --stats "$T/took" -o "$T/run" 2>"$T/.err"
    did=$?
    if [ $told -eq 0 ]; then
        plans=$((plans + 1))
        [ ! -s "$T/reason" ] && grep -q "^memory in all *[0-9.]* MB$" "$T/table" || wrong="$wrong# $what: $(cat "$T/reason" "$T/table")
"
        [ $did -ne 0 ] || same_plan || planned="$planned# $what
"
        [ $did -eq 0 ] && [ "$(sent "$T/said")" = "$(sent "$T/took")" ] || apart="$apart# $what: told, but $(head -n 1 "$T/.err"), $(sent "$T/said") for $(sent "$T/took")
"
    else
        refused=$((refused + 1))
        [ $told -le 2 ] && [ ! -s "$T/table" ] && [ "$(grep -c '^pretrain: ' "$T/reason")" = 1 ] || wrong="$wrong# $what: status $told, $(cat "$T/reason")
"
        [ $did -eq $told ] || apart="$apart# $what: refused ($(head -n 1 "$T/reason")), but the run's status is $did
"
    fi
done <"$T/cases"
is "$plans plans and $refused refusals, each whole or with one reason" "$wrong" ""
is "runs do what was told, to the byte sent" "$apart" ""
is "scalefit plan says the same of each run" "$planned" ""
ok "there were both" test $plans -gt 0 -a $refused -gt 0
# What no machine has is told or refused like anything else, and at once.
config=$T/c.json
for case in "--seq-len 16777216 --steps 1000000000000" "--seq-len 64 --batch-tokens 64 --batch-ramp 1:1000000000000 --steps 1000000000000"; do
    fails 2 "are too many" "$case" pretrain --device cpu --dry-run --model-config "$config" $case
done
ok "a step of a billion samples" pretrain --device cpu --dry-run --model-config "$config" --seq-len 64 --batch-tokens 64000000000 --micro-batch 1 --steps 1 --dp 2 --shard 3 --stats "$T/said"
fails 1 "a step has 1 samples, fewer than ranks" "a later stage of training that has too few samples" \
    pretrain --device cpu --dry-run --model-config "$config" --seq-len 64 --batch-tokens 192 --batch-ramp 1:64 --dp 3 --steps 3
is "of which nothing is told" "$(cat "$T/.out")" ""
done_testing
