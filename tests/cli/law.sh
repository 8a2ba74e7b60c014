# Sourced by the tests of scalefit, after tap.sh.

# value JSON-file LAW KEY
value() { grep "\"$2\"" "$1" | sed "s/.*\"$3\": \([^,}]*\).*/\1/"; }
# close NAME A B TOLERANCE: absolute
close() { awk -v a="$2" -v b="$3" -v t="$4" 'BEGIN { d = a - b; exit !(a != "" && b != "" && d <= t && d >= -t) }'; s=$?; result $s "$1"; [ $s -eq 0 ] || echo "# $2 for $3" >&2; }

# Tables whose law is known: Hoffmann's form 3 with its printed constants, exponents 0.28/0.62 and 0.34/0.62.
law() { # law BUDGETS SIZES NOISE
    awk -v n="$1" -v m="$2" -v noise="$3" 'BEGIN { srand(7); print "params\ttokens\tflops\tloss"
        g = (0.34 * 406.4 / (0.28 * 410.7)) ^ (1 / 0.62)
        for (k = 0; k < n; k++) { c = 6e18 * 2 ^ k; best = g * (c / 6) ^ (0.28 / 0.62)
            for (i = 0; i < m; i++) { p = best * 10 ^ (1.2 * (i / (m - 1) - 0.5)); d = c / (6 * p)
                printf "%.0f\t%.0f\t%.6g\t%.6f\n", p, d, c, (1.69 + 406.4 / p ^ 0.34 + 410.7 / d ^ 0.28) * (1 + noise * (2 * rand() - 1)) } } }'
}
