# scalefit plan: every formula beside a figure that is published or that the program which counts so prints.
# smoke
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/law.sh"
# near NAME KEY VALUE RELATIVE: of the last plan
near() { awk -v g="$(sed -n "s/^ *\"$2\": \([-0-9.e+]*\),*$/\1/p" "$T/plan.json")" -v w="$3" -v r="${4:-1e-9}" 'BEGIN { exit !(g != "" && g - w <= r * w && w - g <= r * w) }'
    result $? "$1 ($2: $(sed -n "s/^ *\"$2\": \([-0-9.e+]*\),*$/\1/p" "$T/plan.json") for $3)"; }
plan() { scalefit plan --json --published "$@" >"$T/plan.json"; }
l8="--layers 32 --hidden 4096 --heads 32 --kv-heads 8 --intermediate 14336 --vocab 128256 --seq-len 8192"
l70="--layers 80 --hidden 8192 --heads 64 --kv-heads 8 --intermediate 28672 --vocab 128256 --seq-len 8192"
l405="--layers 126 --hidden 16384 --heads 128 --kv-heads 8 --intermediate 53248 --vocab 128256 --seq-len 8192"

# Counting: Llama 3's sizes, attention's share, keys and values a token.
plan $l8 --tokens 1e12
near "parameters of Llama 3 8B" params 8030261248
near "attention is 14 % over 6 N D without the input table" flops_attention "$(awk 'BEGIN { print 6 * (8030261248 - 128256 * 4096) * 1e12 * 1.143 }')" 2e-3
near "keys and values of a token" kv_cache_bytes_per_token 131072
near "weights and the cache of a sequence" serving_bytes "$(awk 'BEGIN { printf "%.0f", 2 * 8030261248 + 131072 * 8192 }')"
near "a checkpoint: 112 GB" checkpoint_bytes 112e9 0.005
near "logits of 8,192 tokens: 4.2 GB of f32" logits_bytes "$(awk 'BEGIN { print 2.5 * 4.2e9 }')" 0.001
plan $l70 --tokens 1e12
near "parameters of 70B" params 70553706496
near "keys and values of a token" kv_cache_bytes_per_token 327680
plan $l405 --tokens 15.6e12
near "parameters of 405B" params 405853388800
near "6 N D" flops 3.80e25 1e-3
near "attention is 4 % more" flops_attention "$(awk 'BEGIN { print 6 * (405853388800 - 128256 * 16384) * 15.6e12 * 1.042 }')" 1e-3
near "keys and values of a token" kv_cache_bytes_per_token 516096
near "a checkpoint: 5.7 TB" checkpoint_bytes 5.7e12 0.005
near "Megatron-LM counts the same but for the norms" flops_megatron 3.937e25 1e-3
near "Porian et al.: layers alone" flops_layers "$(awk 'BEGIN { printf "%.10g", 6 * (405853388800 - 2 * 128256 * 16384) * 15.6e12 }')"
near "and the output layer" flops_layers_output "$(awk 'BEGIN { printf "%.10g", 6 * (405853388800 - 128256 * 16384) * 15.6e12 }')"
near "and attention as s h l parameters" flops_layers_attention "$(awk 'BEGIN { printf "%.12g", 6 * (405853388800 - 128256 * 16384 + 8192 * 16384 * 126) * 15.6e12 }')"

# Laws.
plan --params 402e9 --tokens 15.754e12
near "Llama 3's law: 10.5T as printed" tokens_llama3 10.5e12 0.01
near "16.55T with 0.5378" tokens_llama3_reached 16.55e12 0.01
plan --params 70e9 --tokens 1.4e12
near "Hoffmann's constants at 5.88e23: 32.5B" params_hoffmann 32.5e9 0.005
near "Besiroglu's: 73 to 74B" params_besiroglu 73.5e9 0.01
plan --params 6.34e9 --tokens 242e9 --unique-tokens 25e9
near "Muennighoff et al.'s loss of 6.34B on 242B tokens, 25B of them unique" loss_repeated 2.2256440889984477 1e-6
plan --params 1e9 --tokens 1e11 --unique-tokens 25e9
near "four epochs cost almost nothing" loss_repeated "$(sed -n 's/.*"loss_unrepeated": \([0-9.]*\),*/\1/p' "$T/plan.json")" 5e-3
plan --params 8.8e13 --tokens 5.4e13
near "Kaplan et al.: L(8.8e13) is 1" loss_kaplan_params 1
near "and L of 5.4e13 tokens" loss_kaplan_tokens 1
plan --params 1e9 --tokens 20e9
near "step law: rate" lr_step 9.96e-4 1e-3
near "and batch" batch_step 442e3 1e-3
near "DeepSeek LLM: batch" batch_deepseek "$(awk 'BEGIN { print 0.2920 * 1.2e20 ^ 0.3271 }')" 1e-5
plan --params 108e6 --tokens 1e9
near "OLMo's ladder: rate at 108M" lr_olmo 0.0047
near "160 sequences of 2,048" batch_olmo 327680

# Batch and width.
plan --params 1e9 --tokens 2e10 --noise-scale 1e6 --batch-tokens 1e6
near "at the critical batch twice the steps of the least" steps_least 10000
near "and twice the tokens" tokens_least 1e10
near "and compute" flops_least 6e19
plan --params 1e9 --tokens 2e10 --gradient-norms 1000,5,100000,1.04 --batch-tokens 4000
near "|G|^2 from two batches' norms, 1 + 4000/B" gradient_square 1
near "tr(Sigma)" gradient_noise 4000
near "noise scale" noise_scale 4000
plan $l8 --tokens 1e12 --base-hidden 256 --lr 4e-3
near "muP, 16 times the width: rate of hidden matrices" mup_lr_hidden 2.5e-4
near "that of the others stays" mup_lr_other 4e-3
near "variance" mup_variance_hidden 0.0625
near "logits" mup_logits 0.0625
near "scores by 1/d" mup_scores 0.0078125

# Memory. Megatron-LM's theoretical_memory_usage.py (2026-08-22) of 8B t2 d4, 70B t4 p4 d16, 405B t8 p16 d128 v8, 70B t4 p8 d8 with 3 micro-batches.
megatron() { # NAME STATES SHARED ACTIVATIONS PLAIN OPTION…
    name=$1 states=$2 shared=$3 acts=$4 plain=$5
    shift 5
    plan --tokens 1e12 "$@"
    near "Megatron-LM's count of $name: 18 bytes a parameter" states_megatron_bytes $states
    near "6 + 12/d" states_megatron_sharded_bytes $shared
    near "activations, sbh(18 + 4f/h)/t" activations_megatron_bytes $acts
    near "sbh(10 + 24/t)" activations_megatron_plain_bytes $plain
}
megatron 8B 72274747392 36137373696 19365134336 26012408217.6 $l8 --grid 2,1,1,4 --batch-tokens 1048576
megatron 70B 81741385728 30653019648 43016847360 90476445696 $l70 --grid 4,1,4,16
megatron "405B, interleaved" 61214238720 20723570400 73511353344 260413087334.4 $l405 --grid 8,1,16,128 --virtual-stages 8
megatron "70B, fewer micro-batches than stages" 43234707456 18014461440 16156508160 34034466816 $l70 --grid 4,1,8,8 --batch-tokens 196608
# Korthikanti et al. 2022, table 2, GPT-3: 96 layers of 12,288, 96 heads, 2,048 tokens: 5as/h is 80; t 8.
plan --params 175e9 --tokens 3e11 --layers 96 --hidden 12288 --heads 96 --vocab 51200 --seq-len 2048 --grid 8,1,1,8
layer=$((2048 * 12288 * 96))
near "activations of GPT-3: 34 + 80" activations_scores_bytes $((layer * 114))
near "--tp 8: 10 + 24/8 + 80/8" activations_tp_bytes $((layer * 23))
near "the sequence cut too: 114/8" activations_sp_bytes $((layer * 114 / 8))
near "and attention recomputed: 34/8" activations_sp_selective_bytes $((layer * 34 / 8))
near "all recomputed: 2" activations_recompute_bytes $((layer * 2))
plan $l405 --tokens 1e12 --grid 8,1,16,128 --virtual-stages 8
near "interleaving keeps 1 + 15/128 times the layers" in_flight_layers 140.765625
near "its bubble" bubble 0.1171875
near "of the whole" bubble_share 0.104895 1e-5
# ZeRO, 7.5B parameters on 64 ranks (Rajbhandari et al. 2020, figure 1): 120, 31.4, 16.6, 1.9 GB.
plan --params 7.5e9 --tokens 1e12 --layers 32 --hidden 4096 --vocab 50000 --gpus 64
near "ZeRO-0" zero0_bytes 120e9
near "ZeRO-1" zero1_bytes 31.4e9 1e-2
near "ZeRO-2" zero2_bytes 16.6e9 1e-2
near "ZeRO-3" zero3_bytes 1.9e9 2e-2
near "with f32 gradients 18" zero0_f32_bytes 135e9
near "6 + 12/d" zero1_f32_bytes "$(awk 'BEGIN { printf "%.10g", 7.5e9 * (6 + 12 / 64) }')"
near "2 + 16/d" zero2_f32_bytes "$(awk 'BEGIN { printf "%.10g", 7.5e9 * (2 + 16 / 64) }')"
near "18/d" zero3_f32_bytes "$(awk 'BEGIN { printf "%.10g", 7.5e9 * 18 / 64 }')"

# Collectives over 8 ranks of a node, by rings and by trees; latency 1 s makes the steps visible.
plan --params 1e9 --tokens 1e12 --layers 16 --hidden 2048 --vocab 32000 --seq-len 2048 --batch-tokens 16384 --grid 1,1,1,8 --cluster intra-latency=1e6,intra-bandwidth=1,links=1
near "all-reduce in a ring: 14 steps, 14/8 of the bytes" dp_ring_seconds 21
near "over a tree: 6 steps, twice the bytes" dp_tree_seconds 14
near "half of it in a ring: 7 steps, 7/8" dp_scatter_ring_seconds 10.5
near "by doubling: 3 steps" dp_scatter_tree_seconds 6.5
near "bytes that a rank sends" dp_sent_bytes 7e9
near "in bf16" dp_bf16_sent_bytes 3.5e9
near "three transfers with the weights cut" fsdp_sent_bytes 5.25e9
plan $l405 --tokens 1e12 --grid 8,1,16,128
near "--tp: 2 b s h bytes an all-reduce" tp_sum_bytes 268435456
near "sent in a step: 16 passes of 7.875 layers, four 14/8 each" tp_sent_bytes "$(awk 'BEGIN { printf "%.12g", 268435456 * 16 * 7.875 * 4 * 14 / 8 }')"
near "--pp: a message" pp_message_bytes 33554432
plan $l405 --tokens 1e12 --seq-len 131072 --grid 8,16,16,8
near "--cp: keys and values of a step of the ring, of one of 8 ranks" cp_piece_bytes $((2 * 2 * 8192 * 1024 / 8))

# Time and money: cards of Llama 2 and 3, by the hours that they say.
plan --params 7e9 --tokens 1e12 --tflops 312 --mfu 0.4 --price 2
near "7B on 1T tokens: A100 hours" gpu_hours 93483 1e-5
near "their price" cost 186966 1e-5
plan --params 7e9 --tokens 2e12 --tflops 312 --hours 184320
near "Llama 2 7B: MFU of 184,320 A100 hours" mfu_of_hours 0.406 1e-3
for card in "405e9 30.84e6 0.33" "70e9 7.0e6 0.25" "8e9 1.46e6 0.14"; do
    set -- $card
    plan --params $1 --tokens 15e12 --hours $2
    near "Llama 3.1 of $1 parameters: MFU of $2 H100 hours" mfu_of_hours $3 0.03
done
plan --params 405e9 --tokens 15e12 --vocab 128256 --gpus 16384
near "token shards of 15T" data_bytes 60e12
near "3.09 h between interruptions" interruption_hours 3.09 1e-3
near "Young's interval: 19.3 minutes" checkpoint_interval_young 1158 5e-3
near "10.4 % lost" lost_share 0.104 5e-3
plan --params 405e9 --tokens 15e12 --gpus 16384 --checkpoint-seconds 30
near "7.3 % at 30 s" lost_share 0.073 1e-2
plan --params 70e9 --tokens 1
near "70B at 16 bits" inference_bytes 168e9
plan --params 70e9 --tokens 1 --bits 4
near "at 4" inference_bytes 42e9

fails 1 "second batch must be the larger" "gradient norms in the wrong order" scalefit plan --params 1e9 --tokens 1e9 --gradient-norms 10,1,5,1
fails 1 "no noise scale fits" "gradient norms without noise" scalefit plan --params 1e9 --tokens 1e9 --gradient-norms 10,1,50,1
is "of which nothing is planned" "$(cat "$T/.out")" ""
fails 1 "needs the model's sizes" "muP of no shape" scalefit plan --params 1e9 --tokens 1e9 --base-hidden 64
fails 1 "4 positive numbers" "a grid of two numbers" scalefit plan --published $l8 --tokens 1e9 --grid 2,2
fails 2 "plan needs --tokens" "neither parameters nor a shape" scalefit plan --tokens 1e9
done_testing
