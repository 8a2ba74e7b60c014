# Token shards from text, for tests: a document a line, ids between blanks (after tap.sh).
# shard_write PREFIX [WIDTH]: standard input to PREFIX.bin and PREFIX.idx, WIDTH bytes an id (2)
shard_write() {
    awk -v width="${2:-2}" -v bin="$1.bin" -v idx="$1.idx" '
        function put(file, value, bytes) { while (bytes-- > 0) { printf "%c", value % 256 >file; value = int(value / 256) } }
        { for (i = 1; i <= NF; i++) put(bin, $i, width); length_of[n++] = NF }
        END {
            printf "" >bin
            printf "MMIDIDX" >idx; put(idx, 0, 2); put(idx, 1, 8); put(idx, width == 2 ? 8 : 4, 1)
            put(idx, n, 8); put(idx, n + 1, 8)
            for (i = 0; i < n; i++) put(idx, length_of[i], 4)
            for (i = at = 0; i < n; i++) { put(idx, at, 8); at += length_of[i] * width }
            for (i = 0; i <= n; i++) put(idx, i, 8)
        }'
}
# shard_read PREFIX: the documents again, a line each
shard_read() {
    width=$(od -An -j17 -N1 -tu1 "$1.idx" | awk '{ print $1 == 8 ? 2 : 4 }')
    count=$(od -An -j18 -N8 -tu8 "$1.idx" | tr -d ' ')
    {
        od -An -v -j34 -N$((4 * count)) -tu4 -w4 "$1.idx"
        echo ids
        od -An -v -tu"$width" -w"$width" "$1.bin"
    } | awk '$1 == "ids" { ids = 1; d = 0; k = 0; next }
        !ids { want[n++] = $1; next }
        { printf "%s%s", $1, ++k == want[d] ? "\n" : " "; if (k == want[d]) { d++; k = 0 } }'
}
# byte FILE OFFSET OCTAL...: overwrites bytes
byte() {
    file=$1 at=$2
    shift 2
    for octal; do
        printf "\\$octal" | dd of="$file" bs=1 seek="$at" conv=notrunc 2>/dev/null
        at=$((at + 1))
    done
}
