# Sourced by the tests of ranks: how far two logs are from each other.
# difference LOG LOG: the largest relative difference in loss, gradient norm and held-out loss; unlike steps or tokens: 1
difference() {
    awk -v RS='[{},\n]+' -F: '
        FNR == 1 { file++; n = 0 }
        $1 ~ /^"(step|tokens|loss|grad_norm|val_loss|skipped)"$/ {
            n++
            if (file == 1) { name[n] = $1; value[n] = $2; count = n; next }
            d = ($2 - value[n]) / (value[n] ? value[n] : 1); d = d < 0 ? -d : d
            if (name[n] != $1 || ($1 ~ /step|tokens/ && d)) d = 1
            if (d > most) most = d
        }
        END { print (n == count && n > 15 ? most + 0 : 1) }' "$1" "$2"
}
near() { awk -v d="$(difference "$2" "$3")" 'BEGIN { exit !(d <= 1e-4) }'; result $? "$1 (largest relative difference $(difference "$2" "$3"))"; }
