# Sourced after tap.sh by tests of several ranks: $mpirun, $no_mpi (why there is none), a small model and its data, the processes
# of a job's ranks.
no_mpi=
command -v mpirun >/dev/null || no_mpi="no mpirun here (Debian: openmpi-bin)"
[ -e "$BIN/../lib/liblmpipe-mpi.so" ] || no_mpi="built without MPI (Debian: libopenmpi-dev)"
# What MPI's libraries do not free is not ours to find: ranks that are threads show what we do not. Objects that are loaded first are wanted.
mpirun=mpirun
nm "$BIN/pretrain" 2>/dev/null | grep -q __asan_init && mpirun="env ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0:verify_asan_link_order=0 mpirun"
if [ -z "$no_mpi" ] && mpirun --version 2>/dev/null | grep -q "Open MPI"; then
    mpirun="$mpirun --oversubscribe --bind-to none"
    [ "$(id -u)" = 0 ] && mpirun="$mpirun --allow-run-as-root"
fi
# $T/c.json, $T/v and the shard $T/s
ranks_data() {
    for i in $(seq 300); do echo "{\"id\":\"$i\",\"text\":\"line $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers, and so is $i\"}"; done >"$T/d.jsonl"
    bpe-train -q --vocab-size 320 -o "$T/v" "$T/d.jsonl"
    tokenize --tokenizer "$T/v" -o "$T/s" "$T/d.jsonl"
    scalefit shape --params 2e4 --vocab 320 --head-dim 16 --aspect 24 --eos 319 >"$T/c.json" 2>/dev/null
}
# ranks_config VOCABULARY WIDTH FEED LAYERS HEADS KEY-VALUE-HEADS HEAD-WIDTH POSITIONS TIED [EOS]: a config.json
ranks_config() {
    printf '{"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":%s,"hidden_size":%s,"intermediate_size":%s,"num_hidden_layers":%s,
    "num_attention_heads":%s,"num_key_value_heads":%s,"head_dim":%s,"max_position_embeddings":%s,"rms_norm_eps":1e-5,"rope_theta":10000,
    "initializer_range":0.05,"tie_word_embeddings":%s,"hidden_act":"silu","bos_token_id":null,"eos_token_id":%s,"torch_dtype":"float32"}' \
        "$1" "$2" "$3" "$4" "$5" "$6" "$7" "$8" "$9" "${10:-319}"
}
# ranks_chats N: also what post-training takes: $T/two.json of two layers, $T/v with a chat template, $T/chat.jsonl and $T/pairs.jsonl
ranks_chats() {
    ranks_data
    sed 's/"num_hidden_layers": 1/"num_hidden_layers": 2/' "$T/c.json" >"$T/two.json"
    bpe-train -q --vocab-size 320 --chat-template -o "$T/v" "$T/d.jsonl"
    for i in $(seq "$1"); do
        a=$([ $((i % 2)) = 0 ] && echo yes || echo no) b=$([ $((i % 2)) = 0 ] && echo no || echo yes)
        echo "{\"messages\":[{\"role\":\"user\",\"content\":\"Is $i even?\"},{\"role\":\"assistant\",\"content\":\"$a\"}]}" >&3
        echo "{\"id\":\"$i\",\"prompt\":\"Is $i even?\",\"chosen\":\"$a\",\"rejected\":\"$b\"}" >&4
    done 3>"$T/chat.jsonl" 4>"$T/pairs.jsonl"
}
# ranks_answers N CHATS PAIRS RANKINGS: records of several lengths, of which a chat has one answer, a pair two, a ranking three
ranks_answers() {
    for i in $(seq "$1"); do
        a=$([ $((i % 2)) = 0 ] && echo yes || echo no) b=$([ $((i % 2)) = 0 ] && echo no || echo yes)
        echo "{\"messages\":[{\"role\":\"user\",\"content\":\"Is $i even?\"},{\"role\":\"assistant\",\"content\":\"$a, of course\"}]}" >&3
        echo "{\"id\":\"$i\",\"prompt\":\"Is $((i * i)) even?\",\"chosen\":\"$a\",\"rejected\":\"$b, if you think of it\"}" >&4
        echo "{\"prompt\":\"Is $i even?\",\"responses\":[\"$a\",\"$a or $b\",\"$b\"]}" >&5
    done 3>"$2" 4>"$3" 5>"$4"
}
# rank_process JOB RANK: the process of a rank of the mpirun JOB, nothing where there is none
rank_process() {
    for p in $(ps -o pid= --ppid "$1"); do
        tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | grep -qx "\(OMPI_COMM_WORLD_RANK\|PMI_RANK\)=$2" && echo "$p"
    done
}
# Ranks without a launcher, which meet in $meet.
meet=$T/meet
# meet_start RANKS COMMAND…: one process a rank; their numbers in $processes, what rank N says in $T/says.N
meet_start() {
    ranks=$1
    shift
    processes=
    for rank in $(seq 0 $((ranks - 1))); do
        LMPIPE_MEET=$meet LMPIPE_RANK=$rank LMPIPE_RANKS=$ranks "$@" 2>"$T/says.$rank" &
        processes="$processes $!"
    done
}
# Waits for them; succeeds where all have.
meet_ended() {
    failed=0
    for p in $processes; do wait "$p" || failed=$((failed + 1)); done
    cat "$T"/says.* >"$T/said"
    [ $failed = 0 ] || cat "$T/said" >&2
    [ $failed = 0 ]
}
meet_all() { meet_start "$@"; meet_ended; }
meet_process() { echo "$processes" | cut -d ' ' -f $(($1 + 2)); }
