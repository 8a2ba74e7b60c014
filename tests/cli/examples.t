# The manual: every option of every program stands in its page with its default, and every command of every EXAMPLES section runs
# as printed, on small real inputs (fixture.sh), and gives what the page promises: the output shown, where "$ " begins a command
# ("..." stands for what differs from machine to machine), the files named by -o, > and --plot, else something on standard output.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/fixture.sh"

# Names of the options that --help=all lists, with the default where it is one word.
options() { "$1" --help=all | perl -0777 -ne 's/\n {6,}(?=\S)/ /g; while (/^ {2}(?:-(\w), )?--([\w-]+)(.*)$/mg) { my ($n, $t) = ($2, $3);
    print "$n\t", $t =~ /\(default:? ([^-\s,;:)][^\s,;:)]*)\)/ ? $1 : "", "\n" }'; }
# What is missing in PAGE of the options read: a name in no .It line, or a default that neither its item says nor lmpipe(7), where
# the item points there.
missing() {
    perl -e 'sub items { open my $f, "<", shift or die; my (%item, @now); while (<$f>) { chomp;
        if (/^\.It (.*)/) { @now = map { s/^-//r } grep { /^-/ } map { s/^Fl //r } split / /, $1 =~ s/\bFl (?!-)\S+ , //r; $item{$_} = "" for @now }
        elsif (/^\.(El|Sh|Ss)/) { @now = () }
        for my $n (@now) { $item{$n} .= " $_" } } %item }
        my %item = items(shift); my %common = items("man/lmpipe.7"); $item{$_} =~ /lmpipe 7/ and $item{$_} .= $common{$_} // "" for keys %item;
        while (<STDIN>) { chomp; my ($name, $default) = split /\t/, $_, -1;
            if (!exists $item{$name}) { print " --$name" } elsif ($default ne "" && index($item{$name}, $default) < 0) { print " --$name($default)" } }' "$1"
}
for page in man/*.1; do
    tool=$(basename "$page" .1)
    options "$tool" >"$T/options"
    lacks=$(missing "$page" <"$T/options")
    grep -q '^quiet' "$T/options" || lacks=" no options: is $tool built?"
    is "$tool.1 explains every option, with its default" "$lacks" ""
done

fixture_make "$T/fixture"
made=$?
result $made "the inputs are made"
[ $made -eq 0 ] || done_testing

# The commands of a page's examples: "COMMAND" lines, each "=" where the page shows output, and its
# lines as "> LINE".
commands() {
    perl -ne 'if (/^\.Sh/) { $on = /^\.Sh EXAMPLES/ } next unless $on;
        if (/^\.Dl (.*)/) { emit($1) } elsif (/^\.Bd -literal/) { @d = (); $in = 1 } elsif (/^\.Ed/) { $in = 0;
            my $shown = grep { /^\$ / } @d; my $line = "";
            for (@d) { if ($shown && !/^\$ / && $line eq "") { print "> $_\n"; next } s/^\$ //; $line .= ($line eq "" ? "" : "\n") . $_;
                next if /(\\|\||&&)$/; emit($line, $shown); $line = "" } emit($line, $shown) if $line ne "" }
        elsif ($in) { push @d, plain($_) }
        sub plain { my $t = shift; chomp $t; for ($t) { s/\\e/\\/g; s/\\&//g; s/\\\(pc/·/g; s/\\\(mu/×/g; s/\\-/-/g; s/\\\(dq/"/g } $t }
        sub emit { my ($c, $shown) = @_; $c = plain($c); $c =~ s/\\\n\s*/ /g; $c =~ s/\n\s*/ /g; print "\$ $c\n"; print "=\n" if $shown }' "$1"
}
# The files that a command promises: after -o, >, --plot, --removed, --answers, but not between quotes, nor of a dry run; a prefix or
# a folder counts.
promised() { printf '%s\n' "$1" | perl -ne "next if /--dry-run/; s/'[^']*'//g;"' print "$1\n" while /(?:\s(?:-o|--plot|--removed|--answers|--output)[ =]|>>?\s*)([^\s|>&;]+)/g'; }
there() { [ -d "$1" ] || [ -s "$1" ] || [ -s "$1.bin" ]; }

# Every program of a pipe counts, where there is a shell that says so; one that was closed early (141) does not.
shell() { if command -v bash >/dev/null; then bash -o pipefail -c "$1"; else sh -c "$1"; fi; }

# run NAME COMMAND SHOWN: SHOWN is a file with the output promised, or absent
run() {
    shell "$2" >"$T/.out" 2>"$T/.err" </dev/null
    status=$? why=
    [ $status -eq 0 ] || [ $status -eq 141 ] || why="exit status $status: $(tail -n 3 "$T/.err")"
    files=$(promised "$2")
    for f in $files; do
        [ "$f" = /dev/null ] || there "$f" || why="$why nothing in $f"
    done
    [ -n "$files" ] || [ -s "$T/.out" ] || [ -s "$T/.err" ] || why="$why no output"
    if [ -f "$3" ]; then
        cat "$T/.out" "$T/.err" | perl -e 'local $/; open my $w, "<", shift or die; my $want = <$w>; my $got = <STDIN>; $want =~ s/[ \t]+/ /g; $got =~ s/[ \t]+/ /g;
            my $p = join ".*?", map { quotemeta } split /\.\.\.|…/, $want =~ s/\n$//r, -1; $got =~ s/…/.../g; exit !($got =~ /^$p\n?$/s)' "$3" ||
            why="$why another output: $(head -n 12 "$T/.out")"
    fi
    is "$1: $2" "$why" ""
}
for page in man/*.[17]; do
    name=$(basename "$page")
    rm -rf "$T/work"
    cp -r "$T/fixture" "$T/work"
    commands "$page" >"$T/commands"
    # What a page makes is not there before.
    grep '^\$ ' "$T/commands" | while read -r line; do promised "$line"; done | while read -r f; do
        case $f in /*) ;; *) (cd "$T/work" && rm -rf "$f" "$f.bin" "$f.idx") ;; esac
    done
    [ -s "$T/commands" ] || { result 1 "$name has examples"; continue; }
    perl -e 'my $dir = shift; my $n = 0; my ($c, $s); while (<STDIN>) { if (/^\$ (.*)/) { $n++; open $c, ">", "$dir/command-$n" or die; print $c "$1\n"; close $c; close $s if $s; undef $s }
        elsif (/^=/) { open $s, ">", "$dir/shown-$n" or die } elsif (/^> (.*)/ && $s) { print $s "$1\n" } }' "$T" <"$T/commands"
    n=1
    while [ -f "$T/command-$n" ]; do
        [ -s "$T/shown-$n" ] || rm -f "$T/shown-$n"
        cd "$T/work" || exit 1
        run "$name" "$(cat "$T/command-$n")" "$T/shown-$n"
        cd "$ROOT" || exit 1
        rm -f "$T/command-$n" "$T/shown-$n"
        n=$((n + 1))
    done
done
done_testing
