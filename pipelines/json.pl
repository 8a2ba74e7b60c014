# Fields of one-line JSON objects, for the recipes' Perl scripts: any spacing, any escapes. A string's raw form is what stands
# between its quotes.
use strict;
use warnings;

# The raw string of the first field with this name; undef where there is none.
sub json_field {
    my ($line, $name) = @_;
    return $line =~ /"\Q$name\E"\s*:\s*"((?:[^"\\]++|\\.)*+)"/ ? $1 : undef;
}

# The bytes that a raw string means (UTF-8); lone surrogates and NUL vanish.
sub json_text {
    my $raw = shift;
    my %short = (n => "\n", t => "\t", r => "\r", b => "\b", f => "\f");
    $raw =~ s{\\(?:u(d[89ab]..)\\u(d[c-f]..)|u(....)|(.))}{
        my $point = defined $1 ? 0x10000 + ((hex($1) & 0x3ff) << 10) + (hex($2) & 0x3ff) : defined $3 ? hex $3 : undef;
        my $char = defined $point ? (!$point || $point >= 0xd800 && $point < 0xe000 ? '' : chr $point) : $short{$4} // $4;
        utf8::encode($char) if defined $point;
        $char;
    }gei;
    return $raw;
}

# A quoted JSON string of bytes.
sub json_quote {
    my $text = shift;
    $text =~ s/([\\"])/\\$1/g;
    $text =~ s/\n/\\n/g;
    $text =~ s/\t/\\t/g;
    $text =~ s/\r/\\r/g;
    $text =~ s/([\x00-\x1f])/sprintf '\\u%04x', ord $1/ge;
    return "\"$text\"";
}

1;
