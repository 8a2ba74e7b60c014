# smoke
# 100 AdamW steps from the same weights and batches give PyTorch's loss curve (tests/reference/adamw_curve.py).
. "$(dirname "$0")/tap.sh"
. tests/cli/shard.sh
od -An -v -tu1 LICENSE | awk '{for (i = 1; i <= NF; i++) printf "%d ", $i % 61} END {print ""}' | shard_write "$T/s"
for curve in tests/data/adamw/*.tsv; do
    family=$(basename "$curve" .tsv)
    pretrain --init "tests/data/models/$family" --data "$T/s" --seq-len 32 --batch-tokens 96 --steps 100 --warmup 10 --lr 3e-3 \
        --save-every 0 -q -o "$T/$family" 2>"$T/err" || cat "$T/err" >&2
    sed 's/.*"step":\([0-9]*\).*"loss":\([0-9.]*\).*/\1 \2/' "$T/$family/log.jsonl" >"$T/ours"
    worst=$(grep -v '^#' "$curve" | awk 'NR == FNR {want[$1] = $2; n++; next} {d = ($2 - want[$1]) / want[$1]; d = d < 0 ? -d : d; if (d > worst) worst = d; m++}
        END {printf "%s %.2g", n == 100 && m == 100 && worst <= 1e-4 ? "fine" : "bad", worst}' - "$T/ours")
    like "$family: 100 losses within 1e-4 of PyTorch's ($worst)" "$worst" '^fine'
done
done_testing
