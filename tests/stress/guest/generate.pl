# Prints a C program of many functions of integer arithmetic that checks its own results, which this program knows because it
# has done the same arithmetic. generate.pl SEED FUNCTIONS
use strict;
use integer;

my ($seed, $functions) = @ARGV;
sub below { $seed = $seed * 6364136223846793005 + 1442695040888963407; return (($seed >> 33) & 0x3fffffff) % $_[0]; }
sub shift_right { my ($value, $count) = @_; no integer; return $value >> $count; }

# Signed 64-bit arithmetic that wraps around, as -fwrapv has it; shifts to the right are of unsigned values.
my %operators = (
	'+' => sub { $_[0] + $_[1] }, '-' => sub { $_[0] - $_[1] }, '*' => sub { $_[0] * $_[1] },
	'^' => sub { $_[0] ^ $_[1] }, '&' => sub { $_[0] & $_[1] }, '|' => sub { $_[0] | $_[1] },
);
my @names = sort keys %operators;

print "#include <stdio.h>\ntypedef long long number;\ntypedef unsigned long long bits;\n";
my @checks;
for my $f (0 .. $functions - 1) {
	my @value = map { below(1 << 29) - (1 << 28) } 0 .. 3;
	my $arguments = join ', ', map { "${_}ll" } @value;
	print "static number f$f(number a, number b, number c, number d)\n{\n\tnumber v[4] = { a, b, c, d };\n";
	for my $line (1 .. 12) {
		my ($to, $x, $y) = map { below(4) } 0 .. 2;
		my $kind = below(4);
		if ($kind == 0) {
			my $count = 1 + below(20);
			print "\tv[$to] = (number)((bits)v[$x] >> $count) ^ v[$y];\n";
			$value[$to] = shift_right($value[$x], $count) ^ $value[$y];
		} elsif ($kind == 1) {
			my ($limit, $times) = (below(1000), 2 + below(9));
			print "\tfor (int i = 0; i < $times; i++)\n\t\tv[$to] += (v[$x] & 1023) > $limit ? v[$y] ^ i : i * v[$x];\n";
			for my $i (0 .. $times - 1) {
				$value[$to] += ($value[$x] & 1023) > $limit ? $value[$y] ^ $i : $i * $value[$x];
			}
		} else {
			my $name = $names[below(scalar @names)];
			print "\tv[$to] = v[$x] $name v[$y];\n";
			$value[$to] = $operators{$name}->($value[$x], $value[$y]);
		}
	}
	print "\treturn v[0] ^ v[1] * 3 ^ v[2] * 5 ^ v[3] * 7;\n}\n";
	my $result = $value[0] ^ $value[1] * 3 ^ $value[2] * 5 ^ $value[3] * 7;
	push @checks, "\tif ((x = f$f($arguments)) != (number)" . sprintf('0x%xull', $result) . ")\n" .
		"\t\twrong++, printf(\"f$f: %llx\\n\", (bits)x);\n";
}
print "int main(void)\n{\n\tnumber x;\n\tint wrong = 0;\n\n", @checks,
	"\tprintf(\"%d of $functions wrong\\n\", wrong);\n\treturn wrong != 0;\n}\n";
