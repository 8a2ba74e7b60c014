# scalefit parametric: a known law, threads, and the published fit of Chinchilla's runs.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/law.sh"
law 9 7 0 >"$T/known.tsv"
scalefit parametric --json --bootstrap 0 --budget 5.76e23 "$T/known.tsv" >"$T/fit.json"
close "parametric finds the E of a known law" "$(value "$T/fit.json" params E)" 1.69 1e-3
close "its alpha" "$(value "$T/fit.json" params alpha)" 0.34 1e-3
close "its beta" "$(value "$T/fit.json" params beta)" 0.28 1e-3
close "its best size" "$(value "$T/fit.json" flops params)" 3.2187e10 1e8
law 9 7 0.004 >"$T/noisy.tsv"
scalefit parametric --json --bootstrap 200 -j 1 "$T/noisy.tsv" >"$T/a"
scalefit parametric --json --bootstrap 200 -j 2 "$T/noisy.tsv" >"$T/b"
same "threads change no bit of its intervals" "$T/a" "$T/b"
for cpu in scalar avx2; do
    LMPIPE_CPU=$cpu scalefit parametric --json --bootstrap 0 "$T/noisy.tsv" >"$T/b"
    for key in E alpha beta; do close "$key by the instructions of $cpu" "$(value "$T/b" params $key)" "$(value "$T/a" params $key)" 1e-6; done
done
fails 1 "too few" "parametric with too few runs" sh -c "head -n 5 '$T/known.tsv' | scalefit parametric"
if command -v gnuplot >/dev/null; then
    ok "--plot draws" scalefit parametric --bootstrap 0 --plot "$T/p.svg" "$T/known.tsv"
    for text in "best at this compute" "fitted loss (nats a token)"; do ok "with '$text'" grep -qF "$text" "$T/p.svg"; done
else
    skip "--plot draws" "gnuplot is not installed"
fi
shared=$ROOT/../shared/data/scaling
if [ -r "$shared/reference-fits.json" ]; then
    scalefit parametric --json --bootstrap 1000 --where used=1 --budget 5.88e23 "$shared/chinchilla.tsv" >"$T/fit.json"
    cat >"$T/chinchilla" <<'P'
use strict; use JSON::PP; local $/; my ($reference, $fit) = @ARGV;
open my $f, '<', $reference or die; my $want = decode_json(<$f>)->{parametric_chinchilla}; open my $g, '<', $fit or die; my $got = decode_json(<$g>);
my ($t, @bad) = ($want->{tolerance});
push @bad, 'objective' if $got->{objective} > $want->{optimum} * (1 + 1e-6);
for (qw(E alpha beta)) { push @bad, $_ if abs($got->{params}{$_} - $want->{params}{$_}) > $t->{$_} }
for (qw(A B)) { push @bad, $_ if abs($got->{params}{$_} / $want->{params}{$_} - 1) > $t->{$_ . '_relative'} }
for (qw(A B E alpha beta)) { push @bad, "sd of $_" if abs($got->{bootstrap}{$_}{sd} / $want->{bootstrap}{sd}{$_} - 1) > $t->{bootstrap_sd_relative} }
push @bad, 'prediction' if abs($got->{predictions}[0]{params} / $want->{prediction}[1]{params} - 1) > 0.005;
print "$got->{points} runs", map { ", $_ differs" } @bad;
P
    is "the parametric fit of Chinchilla's runs and its bootstrap are the reference's" "$(perl "$T/chinchilla" "$shared/reference-fits.json" "$T/fit.json")" "240 runs"
else
    skip "the parametric fit of Chinchilla's runs" "there is no ../shared/data"
fi
done_testing
