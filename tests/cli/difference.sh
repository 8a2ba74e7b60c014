# Sourced by the tests of ranks: how far two logs are from each other.
# difference LOG LOG: the largest relative difference in loss, gradient norm and held-out loss; unlike steps or tokens, or no log: 1
difference() {
    [ -e "$1" ] && [ -e "$2" ] || { echo 1; return; }
    awk -v RS='[{},\n]+' -F: '
        FNR == 1 { file++; n = 0 }
        $1 ~ /^"(step|tokens|loss|grad_norm|val_loss|skipped)"$/ {
            n++
            if (file == 1) { name[n] = $1; value[n] = $2; count = n; next }
            d = ($2 - value[n]) / (value[n] ? value[n] : 1); d = d < 0 ? -d : d
            if (name[n] != $1 || ($1 ~ /step|tokens/ && d)) d = 1
            if (d > most) most = d
        }
        END { print (file == 2 && n == count && n > 15 ? most + 0 : 1) }' "$1" "$2"
}
# near NAME LOG LOG
near() { d=$(difference "$2" "$3"); awk -v d="$d" 'BEGIN { exit !(d <= 1e-4) }'; result $? "$1 (largest relative difference $d)"; }
