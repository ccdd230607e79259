#!/bin/sh
# Vectors recorded on old processors: the samples in the tree, which the manual decides, then whatever sets are there.
#   VECTORS_DIR (~/.cache/doppel/vectors) holds copies of the folders with the files of SingleStepTests/8086 (v1), 8088 (v2), 80286
#   (v1_real_mode) and 80386, as 8086/, 8088/, 80286/ and 80386/: *.json.gz with metadata.json, or *.MOO.gz.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
vectors=${VECTORS:-build/release/tests/vectors/vectors}
sets=${VECTORS_DIR:-$HOME/.cache/doppel/vectors}
samples=tests/vectors/sample

check "samples, interpreted" "$vectors" $samples/8086 $samples/80286
check "samples, translated" "$vectors" --engine bt,block=1 $samples/8086 $samples/80286
"$vectors" --moo "$scratch/80286.MOO" $samples/80286/sample.json
gzip "$scratch/80286.MOO"
check "samples as MOO, packed" "$vectors" "$scratch/80286.MOO.gz"

# A set of MOO files has its masks in metadata.json beside them.
mkdir "$scratch/moo"
"$vectors" --no-masks --moo "$scratch/moo/sample.MOO" $samples/80286/sample.json
moo_flags_count() { ! "$vectors" "$scratch/moo" >"$scratch/out" 2>&1 && grep -q "clts.*flags is" "$scratch/out"; }
check "MOO without masks: all flags are compared" moo_flags_count
cp $samples/80286/metadata.json "$scratch/moo"
check "MOO with its metadata.json" "$vectors" "$scratch/moo"

# A wrong register, wrong memory, and a file that ends too early are seen.
fails() { ! "$vectors" "$1" >"$scratch/out" 2>&1 && grep -q "$2" "$scratch/out"; }
mkdir "$scratch/register" "$scratch/memory"
cp $samples/8086/metadata.json "$scratch/register"
cp $samples/8086/metadata.json "$scratch/memory"
sed 's/"ax": 4608/"ax": 4609/' $samples/8086/sample.json >"$scratch/register/sample.json"
check "a wrong register is seen" fails "$scratch/register" "ax is 0x1200, expected 0x1201"
sed 's/\[131104, 52\]/[131104, 53]/' $samples/8086/sample.json >"$scratch/memory/sample.json"
check "wrong memory is seen" fails "$scratch/memory" "memory at 0x20020 is 0x34, expected 0x35"
gzip -dc "$scratch/80286.MOO.gz" | head -c 700 >"$scratch/short.MOO"
check "a file that ends too early is seen" fails "$scratch/short.MOO" "does not fit"

left_out() { "$vectors" $samples/80286 >"$scratch/out" && [ "$(grep -c '^# left out' "$scratch/out")" = 7 ] && grep -q ', 11 passed, 0 failed, 8 left out' "$scratch/out"; }
check "what the 80286 does otherwise is left out, each with its reason" left_out

for name in 8086 8088 80286 80386; do
	if [ -d "$sets/$name" ]; then
		check "$name, interpreted" "$vectors" "$sets/$name"
		check "$name, translated" "$vectors" --engine bt,block=1 "$sets/$name"
	else
		skip "$name" "no vectors in $sets/$name: see the head of tests/vectors/vectors.t"
	fi
done
finish
